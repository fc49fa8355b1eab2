"""How long a party waits for its coordinator: the `[timing]` table of `node.toml` and `custodian.toml`.

    [timing]
    refused_for = 60     # seconds of refused activation, after which somebody else is online with this key
    noticed = 2          # seconds between the goodbye of an earlier life and the next activation
    longest_wait = 10    # seconds, the longest pause between two tries to reach the coordinator
    call_timeout = 60    # seconds without a byte, after which a call is given up and tried again

Every key has a default, and a federation of weeks needs no other; a test, or a rehearsal, may be more hasty. No
guarantee rests on these figures: whoever waits less asks more often, and parties need not agree on them.

A party's heartbeat is no setting. Flower 1.41 refuses an interval below 10 s or above 1,800 s, when a node comes online
and with each heartbeat (`flwr.superlink.servicer.fleet.fleet_handlers._validate_heartbeat_interval`), and counts a node
as online for two intervals after the last one (`HEARTBEAT_PATIENCE`); 10 s is the soonest that a node which was killed
can be missed.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

HEARTBEAT: Final = 10.0  # seconds, the least that Flower takes
ONLINE_FOR: Final = 2 * HEARTBEAT  # seconds for which a node that was killed still counts as online


class PartyTiming(BaseModel):
    """`[timing]`, in seconds.

    Attributes:
        refused_for: how long the coordinator may refuse this key as being online already before the party ends with
            `AlreadyConnected`. More than `ONLINE_FOR`, and 5 s for the last heartbeat's way: else a node that was
            killed would take its own earlier life for somebody else.
        noticed: what a coordinator is given to notice that the earlier life is over. Where it does not, what it asked
            that life is repeated only after its own `repeat_after`.
        longest_wait: tries are made after pauses that double up to this.
        call_timeout: more than the two seconds for which the coordinator may keep a question (`fleet.WAIT`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    refused_for: Annotated[float, Field(ge=ONLINE_FOR + 5.0, le=3600)] = 3 * HEARTBEAT + 30.0
    noticed: Annotated[float, Field(ge=0, le=60)] = 2.0
    longest_wait: Annotated[float, Field(ge=1, le=600)] = 10.0
    call_timeout: Annotated[float, Field(ge=5, le=600)] = 60.0
