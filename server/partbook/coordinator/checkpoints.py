"""The coordinator's state on disk: written whole or not at all, and enough to go on from after a crash.

state/
  adapter.safetensors     the newest global adapter
  round-0007.safetensors  adapter and the server step's memory after round 7; in sealed rounds, where it never changes,
                          of the newest few alone
  state.json              which round is newest, the adapter's hash, and the curves so far
  given-up.json           rounds that were given up for good, and what they cost
  manifest.json           SHA-256 of adapter.safetensors, for whoever takes it away
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from partbook.coordinator.disk import replace_file as replace_file
from partbook.errors import AlteredFile, ConfigError
from partbook.model.adapter import save_adapter, state_hash, unflatten
from partbook.plan.step import Motion


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What the coordinator knows about a finished round.

    Attributes:
        round: counted from 1; 0 is the state before any.
        adapter_hash: of the adapter after it.
        members: whose updates are in it.
        seconds: how long it took.
        update_norm: L2 norm of the average update; None in sealed rounds, where the coordinator does not see it.
        validation: nats per token on public held-out recordings, by label; empty where the model was not known.
        dropped: by member that was lost on the way, the message kind at which.
        exchanges: wall clock of each exchange in seconds, by message kind.
        spent: what the round cost every recording, as `partbook.privacy.events` writes it down, by against whom.
    """

    round: int
    adapter_hash: str
    members: tuple[str, ...] = ()
    seconds: float = 0.0
    update_norm: float | None = None
    validation: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    exchanges: dict[str, float] = field(default_factory=dict)
    spent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FederationState:
    """Everything the loop carries from one round to the next.

    Attributes:
        adapter: float32 (d,): the newest one the coordinator knows; in sealed rounds that is the first until the
            labels release the last.
        motion: what the next step needs of the ones before.
        history: records of rounds 0 … now.
    """

    adapter: NDArray[np.float32]
    motion: Motion
    history: tuple[RoundRecord, ...]

    @property
    def round(self) -> int:
        """The newest finished round."""
        return self.history[-1].round


class Checkpoints:
    """A folder of states of one federation."""

    def __init__(self, folder: Path, federation: str, base_hash: str, *, keep: int | None = None) -> None:
        """Use `folder`; the states of the newest `keep` rounds stay, of all where None."""
        self._keep = keep
        self._folder, self._federation, self._base_hash = folder, federation, base_hash
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: FederationState, like: dict[str, Any]) -> None:
        """Write a state; `like` is an adapter state that gives names and shapes."""
        motion = state.motion
        arrays: dict[str, NDArray[Any]] = {
            "adapter": state.adapter,
            "velocity": motion.velocity,
            "second": motion.second,
            "steps": np.array([motion.steps], np.int64),
        }
        _write_arrays(self._path(state.round), arrays)
        named = unflatten(state.adapter, like)
        if state_hash(named) == state.history[-1].adapter_hash:
            self._save_final(named, state.round)
        # state.json is last: until it names the round, the round before is the newest.
        history = [asdict(record) for record in state.history]
        head = {"federation": self._federation, "base": self._base_hash, "history": history}
        replace_file(self._folder / "state.json", _json(head))
        for old in self._folder.glob("round-*.safetensors"):
            if self._keep is not None and int(old.stem.removeprefix("round-")) <= state.round - self._keep:
                old.unlink()

    def _save_final(self, named: dict[str, Any], number: int) -> None:
        final = self._folder / "adapter.safetensors"
        about = {"federation": self._federation, "round": str(number), "base": self._base_hash}
        save_adapter(final, named, {**about, "adapter": state_hash(named)})
        with final.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files = {"adapter.safetensors": {"sha256": digest, "bytes": final.stat().st_size}}
        replace_file(self._folder / "manifest.json", _json({"files": files, "about": about}))

    @property
    def given_up(self) -> int:
        """The last round that was given up for good after shares were asked for; 0 where none was."""
        return max((round_ for round_, _ in self.lost()), default=0)

    def lost(self) -> tuple[tuple[int, dict[str, str]], ...]:
        """Rounds that were given up after contributions had left, and what each cost (`RoundRecord.spent`).

        Raises:
            AlteredFile: the file that says so is broken.
        """
        path = self._folder / "given-up.json"
        try:
            found = json.loads(path.read_text())["rounds"] if path.exists() else []
            return tuple((int(one["round"]), dict(one["spent"])) for one in found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AlteredFile(f"{path} is broken ({error}); restore it.") from error

    def give_up(self, number: int, spent: dict[str, str]) -> None:
        """Never plan this round, or one before it, again; what it cost stays counted."""
        rounds = [{"round": round_, "spent": cost} for round_, cost in self.lost()]
        replace_file(self._folder / "given-up.json", _json({"rounds": [*rounds, {"round": number, "spent": spent}]}))

    def load(self) -> FederationState | None:
        """The newest state, or None where there is none yet.

        Raises:
            ConfigError: the folder belongs to another federation or base model.
            AlteredFile: a file is broken or missing.
        """
        head_path = self._folder / "state.json"
        if not head_path.exists():
            return None
        try:
            head = json.loads(head_path.read_text())
            history = tuple(RoundRecord(**{**r, "members": tuple(r["members"])}) for r in head["history"])
            owner = (head["federation"], head["base"])
            arrays = load_file(self._path(history[-1].round))
            motion = Motion(arrays["velocity"], arrays["second"], int(arrays["steps"][0]))
            state = FederationState(arrays["adapter"], motion, history)
        except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
            raise AlteredFile(
                f"{self._folder} holds a broken checkpoint ({error}); restore it or begin anew."
            ) from error
        if owner != (self._federation, self._base_hash):
            raise ConfigError(
                f"{self._folder} belongs to federation {owner[0]!r} on another base; choose another folder."
            )
        return state

    def _path(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:04d}.safetensors"


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """safetensors' format, array by array: a model of fifty million numbers need not lie in memory three times."""
    head, place = {}, 0
    for name, array in arrays.items():
        kind = {"float32": "F32", "int64": "I64"}[str(array.dtype)]
        head[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    parts = [np.ascontiguousarray(array).data.cast("B") for array in arrays.values() if array.nbytes]
    replace_file(path, len(text).to_bytes(8, "little"), text, *parts)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
