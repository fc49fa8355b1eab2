"""What a label allows, in a file that its engineer edits: `policy.toml`, beside the vault.

`Policy.check` holds a plan against it and refuses by name, before anything is trained. What the rounds may cost the
recordings in all, `epsilon_recording` and `epsilon_federation`, is checked by the ledger, which knows what was spent.
A label without the file has the defaults, which are the careful choice for each key.
"""

from __future__ import annotations

import re
import tomllib
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Final, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from partbook.errors import (
    CohortRefused,
    ConfigError,
    NoiseRefused,
    OpenSumsRefused,
    OutsideHours,
    RoundsRefused,
    SamplingRefused,
    UnknownCoordinator,
    UnusableKey,
)
from partbook.identity.keyfiles import in_groups
from partbook.identity.keys import PublicIdentity
from partbook.identity.roster import Roster
from partbook.plan.rounds import MINIMUM_COHORT, Mode, RoundPlan
from partbook.plan.training import DistributedDp, PlainTraining

POLICY_FILE: Final = "policy.toml"

Noise = Literal["distributed", "local", "none"]

_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_HEADER: Final = """\
# What this label allows. A plan that asks for more is refused, by name, before anything is trained; the message
# names the key below that refused it. Nothing here can be changed from outside this machine.
# See what was spent so far: partbook node budget --vault VAULT
"""
_COMMENTS: Final = {
    "coordinator": """\
The one coordinator that may ask: the fingerprint of its identity key (`partbook keys show`), or the key itself in PEM.
Empty: the one that the pinned roster names.""",
    "epsilon_recording": """\
The most privacy, ε at the delta below, that one recording may lose in all federations together. `inf`: no limit.""",
    "epsilon_federation": """\
The same within one federation. Where this line is missing: as much as epsilon_recording.""",
    "delta": """\
The δ at which ε is counted: keep it well below one over the number of recordings.""",
    "sampling": """\
The largest probability with which a plan may draw each recording in a round or step: above 0, at most 1.""",
    "noise": """\
Kinds of noise that are enough: "distributed" (the labels' shares add up), "local" (this node's own suffices).
"none" would allow rounds whose ε is infinite; the limits above must then be inf too.""",
    "modes": """\
"sealed": nobody but the labels reads a sum. Add "masked" to let the coordinator read sums although the roster names
a custodian to seal them to. In a federation without a custodian every round is masked, and that is allowed.""",
    "rounds": """\
The most rounds in one federation.""",
    "minimum_cohort": """\
The fewest labels asked together, this one included: 3 or more.""",
    "colluders": """\
Distributed noise must hold even if this many labels take their own share of it out again.""",
    "hours": """\
When this node may train, in its local time, such as "22:00-06:00". Empty: always.""",
    "gpu_share": """\
The share of a GPU's memory that training may take, 0 to 1; 0 keeps it off the GPU.""",
    "releases": """\
"automatic": the node agrees to the release of a model it holds, as the federation asks. "never": it does not.""",
}


class Policy(BaseModel):
    """A label's limits. Building one checks each of them.

    Attributes:
        coordinator: fingerprint of the coordinator allowed, in groups of four digits; empty for the roster's.
        epsilon_recording: largest ε of a recording over everything; may be infinite.
        epsilon_federation: largest ε of a recording in one federation; may be infinite.
        delta: the δ at which both are counted.
        sampling: largest sampling probability q.
        noise: kinds of noise allowed.
        modes: modes allowed; sealed rounds always are.
        rounds: most rounds in one federation.
        minimum_cohort: fewest labels in a cohort.
        colluders: fewest colluders that distributed noise must withstand.
        hours: local time in which training is allowed, `HH:MM-HH:MM`, over midnight or not; empty for always.
        gpu_share: largest share of a GPU's memory, 0 to 1.
        releases: whether the node endorses and publishes releases by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    coordinator: str = ""
    epsilon_recording: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 8.0
    epsilon_federation: Annotated[float, Field(gt=0, allow_inf_nan=True)] = Field(
        default_factory=lambda known: float(known.get("epsilon_recording", 8.0))
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    sampling: Annotated[float, Field(gt=0, le=1)] = 1.0
    noise: tuple[Noise, ...] = ("distributed", "local")
    modes: tuple[Mode, ...] = ("sealed",)
    rounds: Annotated[int, Field(ge=1)] = 1000
    minimum_cohort: Annotated[int, Field(ge=MINIMUM_COHORT)] = MINIMUM_COHORT
    colluders: Annotated[int, Field(ge=0)] = 0
    hours: str = ""
    gpu_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    releases: Literal["automatic", "never"] = "automatic"

    @field_validator("coordinator")
    @classmethod
    def _one_spelling(cls, text: str) -> str:
        if "-----BEGIN" in text:
            try:
                return PublicIdentity(text.strip().encode() + b"\n").fingerprint
            except UnusableKey as error:
                raise ValueError(str(error)) from error
        digits = re.sub(r"[\s:]", "", text).lower()
        if digits and not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise ValueError(
                "this is neither a public key in PEM nor a fingerprint of 64 hexadecimal digits; "
                "`partbook keys show` prints both halves' fingerprints, the identity's is meant"
            )
        return in_groups(bytes.fromhex(digits))

    @field_validator("hours")
    @classmethod
    def _a_span(cls, text: str) -> str:
        if text and (not _HOURS.fullmatch(text) or text[:5] == text[6:]):
            raise ValueError('write two different times of the day, such as "22:00-06:00", or "" for always')
        return text

    @classmethod
    def default(cls) -> Policy:
        """What holds for a label that has written none."""
        return cls()

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read a TOML file; keys that it leaves out have their defaults.

        Raises:
            ConfigError: the file cannot be read, is not TOML, or a key is wrong; the message names the key.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_bytes().decode("utf-8")))
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read ({error.strerror}); `partbook node policy --write {path}` makes one."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{path}: {key}: {first['msg']}; known keys are {', '.join(_COMMENTS)}.") from error

    @classmethod
    def in_force(cls, vault: Path, path: Path | None = None) -> Policy:
        """The policy at `path`; where none is named, the one beside the vault's index, or the default.

        Raises:
            ConfigError: as `read`.
        """
        if path is not None:
            return cls.read(path)
        beside = vault / POLICY_FILE
        return cls.read(beside) if beside.exists() else cls.default()

    @property
    def text(self) -> str:
        """The file that `read` reads, each key below what it means."""
        parts = [_HEADER]
        for key, value in self.model_dump().items():
            comment = "".join(f"# {line}\n" for line in _COMMENTS[key].splitlines())
            # tomli_w breaks every list over several lines.
            line = f"{key} = [{_listed(value)}]\n" if isinstance(value, tuple) else tomli_w.dumps({key: value})
            parts.append(comment + line)
        return "\n".join(parts)

    def write(self, path: Path) -> None:
        """Write `text` to a new file.

        Raises:
            ConfigError: there is something at `path`, which is not overwritten, or it cannot be written.
        """
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(self.text)
        except FileExistsError as error:
            raise ConfigError(f"{path} exists already and is not overwritten; edit it, or name another.") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error

    def check(self, plan: RoundPlan, roster: Roster, *, rounds_so_far: int, now: datetime) -> None:
        """Return if a plan asks for no more than this policy allows, its price aside.

        Args:
            plan: what the coordinator proposes.
            roster: the pinned one, against which the plan's signature was checked.
            rounds_so_far: rounds of this federation taken part in or reserved, this one not counted.
            now: the time, local where it names no zone.

        Raises:
            UnknownCoordinator, CohortRefused, NoiseRefused, SamplingRefused, OpenSumsRefused, RoundsRefused,
            OutsideHours: the message says what was asked, what is allowed, and which key of `policy.toml` says so.
        """
        asked = roster.coordinator.fingerprint
        if self.coordinator and self.coordinator != asked:
            raise UnknownCoordinator(
                f"Round {plan.round} is asked for by the coordinator {asked}; `coordinator` in policy.toml allows "
                f"{self.coordinator} only. Change it if the federation has told you of a new key, by voice."
            )
        if len(plan.cohort) < self.minimum_cohort:
            raise CohortRefused(
                f"Round {plan.round} brings together {len(plan.cohort)} labels; `minimum_cohort` in policy.toml wants "
                f"{self.minimum_cohort}. Lower it, or ask the coordinator to wait for more."
            )
        self._check_mode(plan, roster)
        self._check_noise(plan)
        if rounds_so_far >= self.rounds:
            raise RoundsRefused(
                f"Round {plan.round} would be number {rounds_so_far + 1} for this label in {plan.federation!r}; "
                f"`rounds` in policy.toml allows {self.rounds}. Raise it to go on."
            )
        if not self._open_at(now):
            raise OutsideHours(
                f"Round {plan.round} came at {_local(now):%H:%M}; `hours` in policy.toml lets this node train in "
                f"{self.hours} only. Widen them, or ask the coordinator to plan the round for then."
            )

    def _check_mode(self, plan: RoundPlan, roster: Roster) -> None:
        if plan.mode == "masked" and roster.custodian is not None and "masked" not in self.modes:
            raise OpenSumsRefused(
                f"Round {plan.round} is masked: the coordinator would read its sum, though there is a custodian "
                f'to seal it to. `modes` in policy.toml allows {_listed(self.modes) or "nothing"}; add "masked" to it.'
            )

    def _check_noise(self, plan: RoundPlan) -> None:
        training = plan.training
        kind: Noise = "none" if isinstance(training, PlainTraining) else training.kind
        if kind not in self.noise:
            what = "adds no noise, so its ε is infinite" if kind == "none" else f"adds {kind} noise"
            raise NoiseRefused(
                f"Round {plan.round} {what}; `noise` in policy.toml allows {_listed(self.noise) or 'nothing'}. "
                f'Add "{kind}" to allow it.'
            )
        if isinstance(training, PlainTraining):
            return
        if isinstance(training, DistributedDp) and training.colluders < self.colluders:
            raise NoiseRefused(
                f"The noise of round {plan.round} withstands {training.colluders} colluders; `colluders` in "
                f"policy.toml wants {self.colluders}. Lower it, or ask the coordinator for more noise."
            )
        if training.sampling > self.sampling:
            raise SamplingRefused(
                f"Round {plan.round} draws each recording with probability {training.sampling:g}; `sampling` in "
                f"policy.toml allows {self.sampling:g}. Raise it, or ask the coordinator for smaller batches."
            )

    def _open_at(self, now: datetime) -> bool:
        if not self.hours:
            return True
        at = _local(now).time()
        begin, end = time.fromisoformat(self.hours[:5]), time.fromisoformat(self.hours[6:])
        return begin <= at < end if begin < end else at >= begin or at < end


def _local(now: datetime) -> datetime:
    return now if now.tzinfo is None else now.astimezone()


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
