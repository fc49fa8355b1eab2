"""What a run did, as data: the one source of every number in `report.html` and `report.json`.

Whoever ran the federation fills a `DemoReport`; `write_report` lays it out. Nothing here measures anything.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from partbook.errors import InputError
from partbook.evaluation.brief import Brief
from partbook.simulation.control import ControlReport, Gain
from partbook.simulation.pictures import LabelCurve


@dataclass(frozen=True, slots=True)
class LabelReport:
    """One label, its node's traffic, and what the model learnt of its kind of music.

    Attributes:
        name: of the label.
        collection: what was recorded, such as "Bach's four-part chorales".
        instrument: on what.
        recordings: ingested and trained on.
        seconds: of audio in them.
        tokens: written down from them.
        refused: (file name, reason) of each file the node would not ingest.
        heldout_recordings, heldout_tokens: public recordings of the same kind, on which losses are measured.
        heldout_notes: that those tokens spell.
        nll_before, nll_after: nats per token on those, for the base model and after the last round.
        per_token, per_note: the same change by unit, with how much of it is change of hand and how much style.
        curve: the same after each evaluated round, and the node's own local loss where the demo shows it.
        messages: how many its node exchanged, both ways.
        bytes_sent, bytes_received: by its node, message contents as serialised.
        nll_without_noise: like `nll_after`, had the same rounds had no noise; None where they had none.
        per_note_without_noise: `per_note` of those.
        epsilon_spent, epsilon_left: ε of each of its recordings, as its ledger has it; None where there is no bound.
        rounds_paid: rounds behind that.
    """

    name: str
    collection: str
    instrument: str
    recordings: int
    seconds: float
    tokens: int
    refused: tuple[tuple[str, str], ...]
    heldout_recordings: int
    heldout_tokens: int
    heldout_notes: int
    nll_before: float
    nll_after: float
    per_token: Gain
    per_note: Gain
    curve: LabelCurve
    messages: int
    bytes_sent: int
    bytes_received: int
    nll_without_noise: float | None = None
    per_note_without_noise: Gain | None = None
    epsilon_spent: float | None = None
    epsilon_left: float | None = None
    rounds_paid: int = 0


@dataclass(frozen=True, slots=True)
class Locks:
    """Which protections of an update were on, and how they were set; None where a setting does not apply.

    Attributes:
        seal: sums are encrypted to the custodian, who opens them for the labels only.
        noise: differential privacy.
        threshold: fewest labels whose updates may be summed, whose signatures open a sum, and whose shares take
            masks off.
        custodian: who holds the key of the seal.
        bits: to which each number of an update is rounded.
        clip_norm: largest L2 norm of an update: of each recording's, where there is noise, otherwise of a label's.
        noise_kind: `distributed`: the labels' noise adds up; `local`: each label's own suffices.
        epsilon_colluders: ε of each recording against labels that take their own noise out of the sum again.
        epsilon_outsiders: against everybody else.
        delta: δ of both.
        colluders: how many such labels.
        noise_multiplier: σ, noise over what one recording can change.
        sampling: q, with which a recording is drawn.
        recordings: behind the bound, of all labels.
        dimension: trained numbers, each of which carries noise.
        epsilon_curve: (rounds done, epsilon_colluders, epsilon_outsiders) from 0 on.
        masks: secure aggregation; there is no run without it.
    """

    seal: bool
    noise: bool
    threshold: int
    custodian: str | None = None
    bits: int | None = None
    clip_norm: float | None = None
    noise_kind: Literal["distributed", "local"] | None = None
    epsilon_colluders: float | None = None
    epsilon_outsiders: float | None = None
    delta: float | None = None
    colluders: int | None = None
    noise_multiplier: float | None = None
    sampling: float | None = None
    recordings: int | None = None
    dimension: int | None = None
    epsilon_curve: tuple[tuple[int, float, float], ...] = ()
    masks: Literal[True] = True


@dataclass(frozen=True, slots=True)
class MessageKind:
    """One kind of message of the run, in one direction. A report lists every kind that was sent, without exception.

    Attributes:
        kind: message type, such as `query.contribute`.
        from_party: whether it goes to the coordinator; it comes from the coordinator otherwise.
        party: who is at the other end: `node`, `custodian` or `node, custodian`.
        holds: in plain words.
        count: how many, over all parties.
        total_bytes: of all of them; `largest_bytes`: of the largest.
    """

    kind: str
    from_party: bool
    party: str
    holds: str
    count: int
    total_bytes: int
    largest_bytes: int


@dataclass(frozen=True, slots=True)
class ExchangeReport:
    """One party's part in one kind of exchange, over the whole run.

    Attributes:
        kind: message type.
        name: what happens in it, in a few words.
        party: a label's name, or the custodian's.
        messages: answers it gave.
        bytes_sent, bytes_received: by it, as serialised.
        seconds: it worked on its answers, all together.
    """

    kind: str
    name: str
    party: str
    messages: int
    bytes_sent: int
    bytes_received: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DropReport:
    """A label that fell away in a round.

    Attributes:
        member: its name.
        kind: message type of the first exchange that it did not answer.
        in_sum: whether its update had arrived before, and counts.
        recovered: what it left behind, and what became of that, in plain words.
    """

    member: str
    kind: str
    in_sum: bool
    recovered: str


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round.

    Attributes:
        round: counted from 1.
        members: whose updates are in the sum.
        dropped: who fell away.
        seconds: how long it took.
        model: hash of the adapter after it.
        exchanges: the coordinator's wall clock of each exchange in seconds, by message type.
    """

    round: int
    members: tuple[str, ...]
    dropped: tuple[DropReport, ...]
    seconds: float
    model: str
    exchanges: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PieceReport:
    """One piece that the released generator wrote.

    Attributes:
        name: heading, such as "Continuing a held-out opening".
        how: one or two sentences: what it was given, how it was sampled.
        seed: of the sampling.
        wav, midi, roll: files beside the report; the WAV and the PNG are embedded in it too.
        seconds: length of the WAV.
        peak_dbfs: of the WAV.
        notes, lowest, highest: how many notes the generator wrote, and the MIDI note numbers between which they lie;
            without the prompt.
        base_roll: picture of what the base model writes from the same seed and request, without the federation; None
            where it is not shown.
        copied_notes: longest run of notes shared, in any key, with a recording compared; None if none was.
        compared_with: with how many recordings.
    """

    name: str
    how: str
    seed: int
    wav: Path
    midi: Path
    roll: Path
    seconds: float
    peak_dbfs: float
    notes: int
    lowest: int
    highest: int
    copied_notes: int | None = None
    compared_with: int = 0
    base_roll: Path | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What was released. Hashes are SHA-256 in hexadecimal; `parameters` includes the adapter's."""

    release: str
    base_sha256: str
    adapter_sha256: str
    signer: str
    parameters: int
    adapter_parameters: int


@dataclass(frozen=True, slots=True)
class DemoReport:
    """A whole run.

    Attributes:
        federation: its name.
        created: when the run ended, with its time zone.
        seed: of everything that was drawn for reproducibility.
        rounds: completed.
        labels: in the order in which they are shown.
        control: what changed for music of none of them.
        stages: (what, seconds), in order.
        locks: which were on.
        messages: every kind sent.
        history: every round.
        exchanges: every party's part in every exchange.
        pieces: what the generator wrote.
        model: what was released.
        music: how pieces that the release writes freely compare with human works.
        machine: (what, value) about the machine and the software.
        limits: what this run does not show, in sentences, beside what follows from `locks`.
    """

    federation: str
    created: datetime
    seed: int
    rounds: int
    labels: tuple[LabelReport, ...]
    control: ControlReport
    stages: tuple[tuple[str, float], ...]
    locks: Locks
    messages: tuple[MessageKind, ...]
    history: tuple[RoundReport, ...]
    exchanges: tuple[ExchangeReport, ...]
    pieces: tuple[PieceReport, ...]
    model: ModelFacts
    music: Brief
    machine: tuple[tuple[str, str], ...]
    limits: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The report as JSON; paths are file names, as everything lies in one folder."""
        return json.dumps(_plain(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(report: DemoReport, folder: Path) -> Path:
    """Write `report.html`, which needs no other file, and `report.json`; return the former's path.

    Raises:
        InputError: a piece's WAV or PNG is missing or unreadable, or the run has no labels.
    """
    from partbook.simulation.report_page import page

    if not report.labels:
        raise InputError("A report needs at least one label; the run it describes had none.")
    _write(folder / "report.json", report.to_json())
    target = folder / "report.html"
    _write(target, page(report))
    return target


def _plain(value: Any) -> Any:
    if isinstance(value, Brief):
        return value.about()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return value


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
