"""What a process says can be read by a machine, and by anybody: nothing secret is in it."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook import logs
from partbook.errors import ConfigError
from partbook.identity.keys import IdentityKey

log = logging.getLogger("partbook.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, flower = logging.getLogger(), logging.getLogger("flwr")
    before = (root.handlers[:], root.level, flower.handlers[:], flower.filters[:], threading.excepthook)
    yield
    root.handlers[:], root.level, flower.handlers[:], flower.filters[:], threading.excepthook = before
    logging.captureWarnings(False)


def said(as_json: bool = True, level: str = "info") -> io.StringIO:
    out = io.StringIO()
    logs.configure("node", "Label A", as_json=as_json, level=level, stream=out)
    return out


def lines(out: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_object_that_says_who_when_and_what() -> None:
    out = said()
    log.warning("asked\n%d times", 3, extra={"round": 7, "peer": "Label B"})
    (line,) = lines(out)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "partbook.test",
        "role": "node",
        "party": "Label A",
        "message": "asked\n3 times",
        "round": 7,
        "peer": "Label B",
    }


def test_no_field_can_pass_itself_off_as_another() -> None:
    out = said()
    log.info("x", extra={"role": "coordinator", "party": "Label B", "level": "error"})
    assert (lines(out)[0]["role"], lines(out)[0]["party"], lines(out)[0]["level"]) == ("node", "Label A", "info")


@given(st.binary(min_size=24, max_size=400))
def test_no_bytes_get_through_however_they_are_put(secret: bytes) -> None:
    out = said()
    log.info("%s", secret)
    log.info(secret)
    log.info("%r and %s", [secret], {"k": secret})
    log.info("x", extra={"blob": secret, "deep": {"list": [bytearray(secret), memoryview(secret)]}})
    log.info("a repr in a text: " + repr(secret))
    log.info("%s", ValueError(f"cannot parse {secret!r}"))
    text = out.getvalue()
    for spelt in (secret.hex(), repr(secret)[2:-1], json.dumps(repr(secret)[2:-1])[1:-1]):
        assert spelt not in text
    assert len(lines(out)) == 6


def test_a_private_key_does_not_get_through() -> None:
    from cryptography.hazmat.primitives import serialization as s

    key = IdentityKey.generate()
    pem = key._private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()
    body = pem.splitlines()[1]
    out = said()
    log.info("loaded %s", pem)
    log.info("cut off: %s", pem[:80])
    log.info("x", extra={"pem": pem, "key": key})
    try:
        raise ValueError(pem)
    except ValueError:
        log.exception("failed")
    assert body not in out.getvalue()
    assert body[:40] not in out.getvalue()
    assert "PRIVATE KEY removed" in out.getvalue()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("partbook/v1/vault-key:" + 32 * "ab", 32 * "ab"),
        ("passphrase=correct-horse", "correct-horse"),
        ("Authorization: Bearer abcdefgh12345", "abcdefgh12345"),
        ('{"token": "s3cr3t"}', "s3cr3t"),
        (base64.b64encode(bytes(range(256))).decode(), "AAECAwQFBgcI"),
        (bytes(range(101)).hex(), "0102030405060708"),
    ],
)
def test_key_material_in_a_text_is_taken_out(text: str, secret: str) -> None:
    assert secret not in logs.redact(f"before {text} after").removeprefix("before ")
    assert logs.redact(f"before {text} after").startswith("before ")


def test_hashes_and_fingerprints_are_not_taken_for_secrets() -> None:
    text = f"roster {64 * 'a'}, key {IdentityKey.generate().public.fingerprint}, ε 3.1, /var/lib/partbook/state"
    assert logs.redact(text) == text


def test_an_array_is_logged_by_its_shape() -> None:
    out = said()
    log.info("%s", np.arange(12).reshape(3, 4))
    log.info("x", extra={"update": np.zeros(5)})
    assert lines(out)[0]["message"] == "[array 3×4]"
    assert lines(out)[1]["update"] == "[array 5]"


def test_a_traceback_is_in_its_line_and_redacted() -> None:
    out = said()
    try:
        raise KeyError("passphrase: hunter2")
    except KeyError:
        log.exception("failed on %s", "train")
    (line,) = lines(out)
    assert (line["error"], line["message"]) == ("KeyError", "failed on train")
    assert "Traceback" in line["trace"]
    assert "hunter2" not in line["trace"]


def test_a_line_that_cannot_be_formatted_is_said_to_be_lost_without_what_was_in_it() -> None:
    out = said()
    logging.getLogger().handlers[:] = logging.getLogger().handlers[-1:]  # the test's own listener would raise
    log.info("%d", "hunter2")
    (line,) = lines(out)
    assert line["message"] == "a line was lost (TypeError)"


def test_a_thread_that_fails_says_so_in_the_log() -> None:
    out = said()
    thread = threading.Thread(target=lambda: 1 / 0, name="pump")
    thread.start()
    thread.join()
    (line,) = lines(out)
    assert line["message"] == "the thread 'pump' ended with ZeroDivisionError"


def test_a_person_reads_times_and_messages_on_one_line_each() -> None:
    out = said(as_json=False)
    log.info("online")
    log.error("a node said: \x1b[2J\r%s", "x\ny")
    first, second = out.getvalue().splitlines()
    assert first[8:] == "  online"
    assert second[8:] == "  error: a node said:  [2J x y"


def test_levels_are_held_and_an_unknown_one_is_named() -> None:
    out = said(level="warning")
    log.info("too little")
    assert out.getvalue() == ""
    with pytest.raises(ConfigError, match="'loud' is none of"):
        logs.configure("node", "Label A", level="loud")


def test_configuring_twice_logs_once() -> None:
    said()
    out = said()
    log.info("once")
    assert len(lines(out)) == 1


def test_flower_speaks_through_us_only_also_when_it_is_imported_later() -> None:
    code = (
        "from partbook import logs\nlogs.configure('node', 'Label A', as_json=True)\n"
        "from flwr.common.logger import log\nlog(20, 'chatter'); log(30, 'a warning'); log(40, 'b')\n"
        "import httpx, logging\n"
        "logging.getLogger('httpx').info('HTTP Request'); logging.getLogger('partbook').info('ours')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["a warning", "b", "ours"]


def test_configuring_loads_nothing_heavy() -> None:
    code = "import sys\nfrom partbook import logs\nlogs.configure('node', 'A')\nprint(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"flwr", "torch", "numpy", "rich"} & set(loaded)
