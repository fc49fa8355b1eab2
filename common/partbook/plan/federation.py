"""The coordinator's configuration: one TOML file, checked when it is read. Paths in it are relative to the file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from partbook.errors import ConfigError
from partbook.model.scope import Scope
from partbook.plan.rounds import Mode, ServerStep
from partbook.plan.training import Training


class FederationConfig(BaseModel):
    """A federation, as its coordinator runs it. Who is in it stands in the roster.

    Attributes:
        roster: the roster's file.
        key: the coordinator's identity key.
        seal_key: the custodian's public key file, in sealed rounds.
        mode: `masked` or `sealed`.
        bits: of a quantised number; 16 in sealed rounds and 20 in masked ones where not given.
        rounds: how many to run in all; a resumed run counts those already done.
        threshold: fewest members whose sum may be opened; the secure default where not given.
        base: folder of the base model; the shipped one where not given.
        state: folder for checkpoints and the global adapter.
        validation: folder of public recordings, a sub-folder per label; may be absent.
        timeout: seconds to wait for one exchange in which members train.
        patience: seconds to wait for any other exchange, and for parties that are not there or fell away.
        scope: which of the adapter's numbers are trained.
        training: what nodes do, and with which noise; `partbook privacy plan` writes this section.
        step: how the average moves the adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    roster: Path
    key: Path
    seal_key: Path | None = None
    mode: Mode = "sealed"
    bits: Annotated[int, Field(ge=2, le=24)] | None = None
    rounds: Annotated[int, Field(ge=1)]
    threshold: int | None = None
    base: Path | None = None
    state: Path
    validation: Path | None = None
    timeout: Annotated[float, Field(gt=0)] = 3600.0
    patience: Annotated[float, Field(gt=0)] = 120.0
    scope: Scope = "all"
    training: Training
    step: ServerStep = ServerStep()

    @model_validator(mode="after")
    def _sealed_to_somebody(self) -> Self:
        if self.mode == "sealed" and self.seal_key is None:
            raise ValueError("seal_key must name the custodian's public key file where mode is 'sealed'")
        return self

    @property
    def number_bits(self) -> int:
        """The bits in force."""
        if self.bits is not None:
            return self.bits
        return 16 if self.mode == "sealed" else 20

    @classmethod
    def read(cls, path: Path) -> FederationConfig:
        """Read a TOML file; relative paths in it begin at its folder.

        Raises:
            ConfigError: the file is missing, is not TOML, or a key is wrong; the message names the key.
        """
        try:
            found = cls.model_validate(tomllib.loads(path.read_text()))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}); give the coordinator's TOML file.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "seal_key"
            raise ConfigError(f"{path}: {key}: {first['msg']}.") from error
        home = path.resolve().parent
        return found.model_copy(update={name: home / value for name, value in found if isinstance(value, Path)})

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        import tomli_w

        path.write_text(tomli_w.dumps(self.model_dump(mode="json", exclude_none=True)))
