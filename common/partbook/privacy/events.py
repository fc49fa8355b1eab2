"""What happened to a label's recordings, in words that an accountant can put a price on.

An event says what was released and nothing about what it cost; `partbook.privacy.accounting` says what it cost. A
node's ledger holds events, so that a better theorem found later prices the past too. Hence the contract, which is
that of `dp_accounting.dp_event`:

- A kind, once written into a ledger, keeps its name and its meaning for ever. A mechanism that differs in anything a
  proof could need is a new kind.
- An event says all that the proof needs; whoever writes an accountant need not know our other code.
- Whoever does not know a kind refuses it. Nothing is guessed, nothing has a default when it is read.

All events of one sequence are about one set of recordings, neighbours differ by adding or removing one recording, and
each event may depend on what the earlier ones released.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

from partbook.errors import CorruptMessage, UnsupportedEvent
from partbook.identity.canonical import LARGEST_INTEGER, Json, canonical, parse_canonical
from partbook.plan.training import DistributedDp, LocalDp, PlainTraining

if TYPE_CHECKING:
    from partbook.plan.rounds import RoundPlan
    from partbook.privacy.mechanism import NoisyGrid

Against = Literal["colluders", "outsiders"]


@dataclass(frozen=True, slots=True)
class NoisySum:
    """One sum of integer vectors was released, with discrete Gaussian noise added to it.

    Each recording was drawn by itself with probability `sampling`, unseen by whoever reads the sum, and a drawn one
    moved the sum by an integer vector of L2 norm at most Δ. Independent noise was added to every coordinate: pointwise
    within a factor e^(±slack), over all coordinates together, of a discrete Gaussian on the integers with standard
    deviation at least `noise_multiplier`·Δ; but for an event of probability `tail`, over all coordinates and members.

    Attributes:
        noise_multiplier: σ, positive.
        sampling: q, above 0 and at most 1.
        slack: in nats, over all coordinates; 0 where one member made the noise.
        tail: probability, below 1, that noise as drawn differs from noise as described.

    Raises:
        ValueError: a figure is out of its range; the message begins with its name.
    """

    noise_multiplier: float
    sampling: float
    slack: float = 0.0
    tail: float = 0.0

    def __post_init__(self) -> None:
        _within("noise_multiplier", self.noise_multiplier, 0 < self.noise_multiplier < math.inf, "positive and finite")
        _within("sampling", self.sampling, 0 < self.sampling <= 1, "above 0 and at most 1")
        _within("slack", self.slack, 0 <= self.slack < math.inf, "at least 0 and finite")
        _within("tail", self.tail, 0 <= self.tail < 1, "at least 0 and below 1")


@dataclass(frozen=True, slots=True)
class Unprotected:
    """Something was computed from the recordings and released without noise: no bound on what it tells."""


Event: TypeAlias = NoisySum | Unprotected


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same event, several times, each with randomness of its own.

    Raises:
        ValueError: `times` is not a whole number from 1 to 2^53 - 1.
    """

    event: Event
    times: int = 1

    def __post_init__(self) -> None:
        whole = isinstance(self.times, int) and not isinstance(self.times, bool)
        _within("times", self.times, whole and 1 <= self.times <= LARGEST_INTEGER, "a whole number from 1 to 2^53 - 1")


def to_json(events: Iterable[Repeated]) -> str:
    """Canonical JSON (`partbook.identity.canonical`); fractions are strings, in the shortest form that reads back.

    Raises:
        UnsupportedEvent: an event of a kind that has no spelling.
    """
    return canonical([{"event": _spelt(each.event), "times": each.times} for each in events]).decode()


def from_json(text: str) -> tuple[Repeated, ...]:
    """The events that `to_json` spelt as `text`.

    Raises:
        CorruptMessage: anything else; the message names the event by its place, and the key.
    """
    try:
        value = parse_canonical(text.encode())
    except ValueError as error:
        raise CorruptMessage(f"The events are not canonical JSON ({error}); the record was altered or cut.") from error
    if not isinstance(value, list):
        raise CorruptMessage("The events are not a list; the record was altered.")
    return tuple(_read_repeated(item, f"event {place}") for place, item in enumerate(value, 1))


def events_of(plan: RoundPlan, against: Against) -> tuple[Repeated, ...]:
    """What one round of a plan does to a recording of one member.

    Args:
        plan: the round.
        against: `colluders`: other members, as many as the plan names, who subtract their own noise from the sum, with
            everybody who reads it; `outsiders`: everybody who reads the sum and added nothing to it, so that all the
            noise of at least `threshold` members stands between them and a recording. In local mode the node's own
            noise is all there is against both.

    Raises:
        UnsupportedEvent: the plan trains in a way for which no event is known.
    """
    if against not in get_args(Against):
        raise ValueError(f"{against!r} is none of {get_args(Against)}")
    training = plan.training
    if isinstance(training, PlainTraining):
        return (Repeated(Unprotected()),)
    if isinstance(training, LocalDp):
        own = plan.local_grid
        step = NoisySum(training.noise_multiplier, training.sampling, own.slack, own.truncation)
        return (Repeated(step, training.steps),)
    if isinstance(training, DistributedDp):
        grid, honest = cast("NoisyGrid", plan.grid), plan.threshold - training.colluders
        tail = grid.truncation * len(plan.cohort)
        if against == "colluders":
            return (Repeated(NoisySum(training.noise_multiplier, training.sampling, grid.slack, tail)),)
        more = training.noise_multiplier * math.sqrt(plan.threshold / honest)
        slack = _slack_among(plan.threshold, grid)
        return (Repeated(NoisySum(more, training.sampling, slack, tail)),)
    raise UnsupportedEvent(
        f"Nothing is known of what training of kind {training.kind!r} tells about a recording; refuse the plan."
    )


def _slack_among(members: int, grid: NoisyGrid) -> float:
    """τ·d of so many members' noise, as `NoisyGrid.slack` has it of the honest ones'.

    Kairouz, Liu and Steinke 2021 (arXiv 2102.06387), on the convolution of discrete Gaussians: τ is at most
    5·Σ exp(−2π²V·k/(k + 1)), k from 1 to members − 1, and each term is at most the first.
    """
    first = max(math.exp(-(math.pi**2) * grid.variance) * (1 + 2**-20), sys.float_info.min)
    return max(5 * grid.dimension * (members - 1) * first, grid.slack) if members > grid.honest else grid.slack


def _within(name: str, value: float, holds: bool, range_: str) -> None:
    if not holds:  # a NaN holds nowhere
        raise ValueError(f"{name} is {value!r} and must be {range_}")


def _spelt(event: Event) -> dict[str, Json]:
    if isinstance(event, NoisySum):
        figures: dict[str, Json] = {name: _shortest(getattr(event, name)) for name in _FIGURES}
        return {"kind": "noisy-sum", **figures}
    if isinstance(event, Unprotected):
        return {"kind": "unprotected"}
    raise UnsupportedEvent(f"{type(event).__name__} has no place in a ledger; this version does not know what it says.")


def _read_repeated(value: Json, where: str) -> Repeated:
    fields = _fields(value, {"event", "times"}, where)
    inner = fields["event"]
    if not isinstance(inner, Mapping):
        raise CorruptMessage(f"{where}: `event` is not an object; the record was altered.")
    kind = inner.get("kind")
    if not isinstance(kind, str) or kind not in _READERS:
        raise CorruptMessage(
            f"{where}: `kind` is {kind!r}, which this version does not know; update before you read it."
        )
    times = fields["times"]
    if not isinstance(times, int):
        raise CorruptMessage(f"{where}: `times` is {times!r} and must be a whole number.")
    try:
        return Repeated(_READERS[kind](inner, where), times)
    except ValueError as error:
        raise CorruptMessage(f"{where}: {error}.") from error


def _read_noisy_sum(value: Mapping[str, Json], where: str) -> Event:
    fields = _fields(value, {"kind", *_FIGURES}, where)
    return NoisySum(**{name: _figure(fields[name], name, where) for name in _FIGURES})


def _read_unprotected(value: Mapping[str, Json], where: str) -> Event:
    _fields(value, {"kind"}, where)
    return Unprotected()


def _fields(value: Json, wanted: set[str], where: str) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise CorruptMessage(f"{where} is not an object; the record was altered.")
    for name in sorted(wanted ^ set(value)):
        raise CorruptMessage(f"{where}: `{name}` is {'missing' if name in wanted else 'not a known key'}.")
    return value


def _figure(value: Json, name: str, where: str) -> float:
    """A number from its one spelling, so that equal events are equal bytes."""
    try:
        figure = float(value) if isinstance(value, str) else None
    except ValueError:
        figure = None
    if figure is None or _shortest(figure) != value:
        raise CorruptMessage(f"{where}: `{name}` is {value!r} and must be a number in its shortest form, as a string.")
    return figure


def _shortest(figure: float) -> str:
    return repr(float(figure) + 0.0)  # the sum has no negative zero


_FIGURES: Final = ("noise_multiplier", "sampling", "slack", "tail")
_READERS: Final[dict[str, Callable[[Mapping[str, Json], str], Event]]] = {
    "noisy-sum": _read_noisy_sum,
    "unprotected": _read_unprotected,
}
