"""What ended a run, as the ServerApp leaves it for whoever started the run: `state/failure.json`.

Flower hands on a sentence at most, and nothing at all when the process is killed. A run that failed without this file
was killed; with it, the file names the error of Partbook's tree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from partbook import errors
from partbook.coordinator.disk import replace_file
from partbook.errors import PartbookError, RunFailed

FILE: Final = "failure.json"


def write_failure(state: Path, error: BaseException) -> None:
    """Leave what ended the run in the state folder; a disk that takes no more is no second error."""
    about = {"error": type(error).__name__, "message": str(error)[:4000]}
    try:
        state.mkdir(parents=True, exist_ok=True)
        replace_file(state / FILE, (json.dumps(about, indent=1) + "\n").encode())
    except OSError:
        return


def read_failure(state: Path) -> PartbookError | None:
    """What ended the last run, as the error it was; `RunFailed` where it is not one of ours; None where none is."""
    try:
        about = json.loads((state / FILE).read_text())
        name, message = str(about["error"]), str(about["message"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return RunFailed(f"The run failed, and {state / FILE} does not say how; look into the logs.")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, PartbookError):
        return kind(message)
    return RunFailed(f"The ServerApp ended with {name}: {message}")


def clear_failure(state: Path) -> None:
    """Before a run."""
    (state / FILE).unlink(missing_ok=True)
