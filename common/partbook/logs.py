"""What a party's process says while it runs: one JSON object a line, or lines for a terminal; never anything secret.

    configure("node", "Label A", as_json=True)
    log.info("online", extra={"round": 7})

    {"time": "2026-11-23T01:50:02.123Z", "level": "info", "logger": "partbook.node.pinned", "role": "node",
     "party": "Label A", "message": "online", "round": 7}

Whatever `extra` holds becomes a field of its own. Everything goes to standard error; files, rotation and retention are
the business of what started the process (journald, `docker logs`).

Our code logs no secret. Should a library, an exception or a mistake try to, it does not get through: bytes are logged
by their length, arrays by their shape, and PEM blocks, vault keys, passphrases, tokens and any run of more than 200
hexadecimal or base64 digits by what they were. The filter stands at the only way out, behind formatting, so it sees
tracebacks too.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from partbook.errors import ConfigError

LONGEST: Final = 200  # hexadecimal or base64 digits in a row that may be a hash, a key's fingerprint or an id
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# Each says at INFO, for every request, what our own code says better or does not need said.
_TALKATIVE: Final = (
    "httpx",
    "httpcore",
    "urllib3",
    "asyncio",
    "uvicorn.access",
    "numba",
    "matplotlib",
    "filelock",
    "h5py",
)
_SECRETS: Final = (
    (re.compile(r"-----BEGIN ([A-Z0-9 ]{1,60})-----.*?(?:-----END \1-----|\Z)", re.DOTALL), r"[\1 removed]"),
    (re.compile(r"(partbook/v\d+/vault-key:)\s*[0-9a-fA-F]+"), r"\1[removed]"),
    (
        re.compile(
            r"(?i)\b((?:pass(?:phrase|word)|secret|token|api[_-]?key|authorization)\b[\"']?\s*[=:]\s*)(?:Bearer\s+)?[\"']?[^\s\"',;}]+"
        ),
        r"\1[removed]",
    ),
    (re.compile(r"(?i)\b(Bearer\s+)[A-Za-z0-9._~+/=-]{8,}"), r"\1[removed]"),
    (re.compile(r"""\bb(?:ytearray\(b)?(?:'(?:[^'\\\n]|\\.){16,}'|"(?:[^"\\\n]|\\.){16,}")\)?"""), "[bytes removed]"),
    (re.compile(rf"[A-Za-z0-9+/_=-]{{{LONGEST + 1},}}"), "[long text removed]"),
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m", "DEBUG": "\x1b[2m"}


def configure(
    role: str, party: str, *, as_json: bool = False, level: str = "info", stream: TextIO | None = None
) -> None:
    """Send every log of this process one way, ours and the libraries'. Calling it again changes to the new way.

    Args:
        role: `node`, `custodian` or `coordinator`.
        party: the name in the roster.
        as_json: one object a line; else lines for a person.
        level: `debug`, `info`, `warning` or `error`; Flower's own messages come from one level higher on.
        stream: standard error where None.

    Raises:
        ConfigError: there is no such level.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"log level {level!r} is none of {', '.join(LEVELS)}.")
    number = LEVELS[level.lower()]
    out = sys.stderr if stream is None else stream
    handler = _Handler(out)
    handler.setFormatter(JsonLines(role, party) if as_json else HumanLines(_coloured(out)))
    root = logging.getLogger()
    for old in list(root.handlers):
        # Whatever else stands there would let through what the filter does not; a test's own listener may stay.
        if isinstance(old, logging.StreamHandler) and type(old).__module__.split(".")[0] != "_pytest":
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    _quieten_flower(logging.WARNING if number >= logging.INFO else logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed


def redact(text: str) -> str:
    """A text without what must not be written down."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def harmless(value: object, depth: int = 3) -> Any:
    """A value as JSON can hold it, redacted: bytes become their length, arrays their shape, other things their text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(getattr(value, "shape", None), tuple):
        return f"[array {'×'.join(map(str, value.shape)) or 'of one'}]"  # type: ignore[attr-defined]
    if depth and isinstance(value, Mapping):
        return {redact(str(key)): harmless(inner, depth - 1) for key, inner in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [harmless(inner, depth - 1) for inner in value]
    return redact(str(value))


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, role: str, party: str) -> None:
        super().__init__()
        self._about = {"role": role, "party": party}

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._about,
            "message": _message(record),
        }
        line |= {name: harmless(value) for name, value in _extra(record).items() if name not in line}
        trace = _trace(self, record)
        if trace:
            line["error"] = type(record.exc_info[1]).__name__ if record.exc_info else None
            line["trace"] = trace
        return json.dumps(line, ensure_ascii=False, allow_nan=False)


class HumanLines(logging.Formatter):
    """`01:50:02  message`, with the level where it is not the usual one, in colour where the terminal has it."""

    def __init__(self, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelname == "INFO" else f"{record.levelname.lower()}: "
        text = f"{when}  {level}{_plain(_message(record))}"
        trace = _trace(self, record)
        if trace:
            text += "".join(f"\n          {_plain(line)}" for line in trace.splitlines())
        colour = _COLOURS.get(record.levelname) if self._coloured else None
        return f"{colour}{text}\x1b[0m" if colour else text


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say that a line was lost. What logging does by itself would print the record, unredacted."""
        kind = sys.exc_info()[0]
        if kind is not None and issubclass(kind, BrokenPipeError):
            return
        why = "unknown" if kind is None else kind.__name__
        try:
            self.stream.write(
                f'{{"level": "error", "logger": "partbook.logs", "message": "a line was lost ({why})"}}\n'
            )
        except (OSError, ValueError):
            return


class _Flower(logging.Filter):
    """Takes Flower's console handler away, which it puts up whenever it is imported, and what it says too often."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        logging.getLogger("flwr").handlers.clear()
        return record.levelno >= self.level


def _quieten_flower(level: int) -> None:
    logger = logging.getLogger("flwr")
    for old in [each for each in logger.filters if isinstance(each, _Flower)]:
        logger.removeFilter(old)
    logger.addFilter(_Flower(level))
    logger.handlers.clear()
    logger.propagate = True


def _message(record: logging.LogRecord) -> str:
    """The message, with arguments that are not text made harmless before they are spelt out."""
    arguments = record.args
    if isinstance(arguments, Mapping):
        arguments = {key: _argument(value) for key, value in arguments.items()}
    elif arguments:
        arguments = tuple(_argument(value) for value in arguments)
    text = str(record.msg) if not isinstance(record.msg, bytes) else f"[{len(record.msg)} bytes]"
    return redact(text % arguments if arguments else text)


def _argument(value: object) -> object:
    """Numbers stay numbers, for `%d`; an exception or a path spells itself, and is redacted with the rest."""
    return value if isinstance(value, int | float | str | BaseException | os.PathLike) else harmless(value)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and not name.startswith("_")}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[1] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return redact("\n".join(parts))


def _plain(text: str) -> str:
    """On one line, and without what would move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is None or issubclass(failure.exc_type, SystemExit):
        return
    name = failure.thread.name if failure.thread else "unknown"
    trace = (failure.exc_type, failure.exc_value, failure.exc_traceback)
    logging.getLogger("partbook").error("the thread %r ended with %s", name, failure.exc_type.__name__, exc_info=trace)
