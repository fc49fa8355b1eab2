"""How long the coordinator waits before it asks again, or takes somebody for dead: `[timing]` of `server.toml`.

    [timing]
    look_every = 1       # seconds between two looks for nodes that are new or back
    repeat_after = 30    # seconds without an answer, after which a question is repeated; doubled each time
    repeat_soon = 5      # the same at the least, where answers to such a question usually come sooner
    gone_after = 1.5     # seconds without a sign of the ServerApp, after which its run is ended and gone on with
    at_once = 0.5        # seconds before the run after one that was killed; doubled for each without a round

Every key has a default, and a federation of weeks needs no other; a test, or a rehearsal, may be more hasty. No
guarantee rests on these figures: an answer is made once, and kept, however often a node is asked for it.

`coordinator run` reads them when it starts, a ServerApp with each run. Parties need not know of them.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ServerTiming(BaseModel):
    """`[timing]`, in seconds.

    Attributes:
        look_every: each look is a call to the SuperLink.
        repeat_after: long enough for the slowest answer that still counts as usual: what is asked twice is sent twice.
        repeat_soon: at most `repeat_after`.
        gone_after: at least two looks of `run`'s apart: a process that asks whose the ServerApp's lock is holds it for
            a moment, and one look that finds it free says little.
        at_once: grows to a minute (`running.SLOWEST`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    look_every: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    repeat_after: Annotated[float, Field(ge=1, le=3600)] = 30.0
    repeat_soon: Annotated[float, Field(ge=0.1, le=3600)] = 5.0
    gone_after: Annotated[float, Field(ge=0.3, le=60)] = 1.5
    at_once: Annotated[float, Field(ge=0.1, le=60)] = 0.5

    @model_validator(mode="after")
    def _soon_is_sooner(self) -> Self:
        if self.repeat_soon > self.repeat_after:
            raise ValueError(f"repeat_soon: {self.repeat_soon:g} must not be more than repeat_after")
        return self
