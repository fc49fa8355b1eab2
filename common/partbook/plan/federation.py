"""The coordinator's configuration: one TOML file, checked when it is read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from partbook.errors import ConfigError
from partbook.plan.rounds import LocalTraining, Locks, MemberName, default_threshold


class ServerStep(BaseModel):
    """How the average update moves the global adapter (FedAvgM: Hsu et al. 2019, arXiv 1909.06335).

    Attributes:
        learning_rate: what the average is multiplied by.
        momentum: share of the last step that is carried on, 0 for plain averaging.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


class FederationConfig(BaseModel):
    """A federation, as its coordinator runs it.

    Attributes:
        name: the federation's name, bound into every plan.
        members: the labels' names; at least three.
        rounds: how many to run in all; a resumed run counts those already done.
        threshold: fewest members whose sum may be used; the secure default where not given.
        base: folder of the base model; the shipped one where not given.
        state: folder for checkpoints and the global adapter.
        validation: folder of public recordings, a sub-folder per label; may be absent.
        timeout: seconds to wait for one exchange.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]
    members: tuple[MemberName, ...]
    rounds: Annotated[int, Field(ge=1)]
    threshold: int | None = None
    base: Path | None = None
    state: Path
    validation: Path | None = None
    timeout: Annotated[float, Field(gt=0)] = 3600.0
    training: LocalTraining = LocalTraining()
    step: ServerStep = ServerStep()
    locks: Locks = Locks()

    @model_validator(mode="after")
    def _members(self) -> Self:
        if len(set(self.members)) < 3 or len(set(self.members)) != len(self.members):
            raise ValueError("members must name at least three different labels")
        return self

    @property
    def cohort(self) -> tuple[str, ...]:
        """All members, sorted."""
        return tuple(sorted(self.members))

    @property
    def quorum(self) -> int:
        """The threshold in force."""
        return default_threshold(len(self.members)) if self.threshold is None else self.threshold

    @classmethod
    def read(cls, path: Path) -> FederationConfig:
        """Read a TOML file.

        Raises:
            ConfigError: the file is missing, is not TOML, or a key is wrong; the message names the key.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}); give the coordinator's TOML file.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not TOML: {error}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "members"
            raise ConfigError(f"{path}: {key}: {first['msg']}.") from error

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        import tomli_w

        path.write_text(tomli_w.dumps(self.model_dump(mode="json", exclude_none=True)))
