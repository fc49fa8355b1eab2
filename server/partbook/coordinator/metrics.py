"""The coordinator's metrics for Prometheus, on 127.0.0.1 alone: `http://127.0.0.1:PORT/metrics`.

Everything is read from `state/status.json` when it is asked for; nothing is kept here. What is not known yet is left
out, never said to be nought. Times are seconds, sizes are bytes.

    partbook_status_readable                     1, or 0 where status.json is there and cannot be read
    partbook_writer_alive                        whether a process runs the rounds, and writes
    partbook_status_written_timestamp_seconds    when it last did, Unix time
    partbook_federation_info{federation,mode}    1
    partbook_round                               number of the round in hand, or of the last one
    partbook_rounds                              how many there are to be
    partbook_rounds_finished                     how many are done
    partbook_rounds_given_up                     how many were given up after contributions had left
    partbook_exchange_info{kind}                 1 for the exchange in hand
    partbook_exchange_seconds{kind}              median of its last twenty
    partbook_round_seconds                       median of the last twenty rounds
    partbook_eta_seconds                         until all rounds are done
    partbook_sent_bytes_total                    content out, all runs of this folder
    partbook_received_bytes_total                content in
    partbook_refusals_total                      answers that were refusals or failures
    partbook_party_here{party}                   whether a node of it is online
    partbook_party_waiting_seconds{party}        since when its answer is awaited; 0 where none is
    partbook_party_late{party}                   whether that is twice as long as usual
    partbook_party_refused{party}                whether it declined, or failed, in this round
    partbook_party_sent_bytes_total{party}       out to it: its even share of each exchange
    partbook_party_received_bytes_total{party}   in from it
    partbook_privacy_bounded                     whether there is any bound on what the rounds tell of a recording
    partbook_epsilon{against}                    ε so far, against `colluders` and `outsiders`
    partbook_epsilon_planned{against}            ε after all rounds
    partbook_delta                               δ of both
    partbook_validation_nats_per_token{label}    on public recordings in that label's style
    partbook_update_norm                         L2 norm of the last average update (masked rounds)
    partbook_state_disk_free_bytes               on the disk of the state folder
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from partbook.coordinator.standing import Status, read_status
from partbook.errors import AlteredFile, ConfigError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOOPBACK: Final = "127.0.0.1"
Kind = Literal["gauge", "counter", "info"]


@dataclass(slots=True)
class Sample:
    """A metric's values, by the values of its labels.

    Attributes:
        name: without the suffix that its kind has in the exposition.
        kind: Prometheus'.
        labels: their names.
        values: one for each combination.
    """

    name: str
    kind: Kind = "gauge"
    labels: tuple[str, ...] = ()
    values: dict[tuple[str, ...], float] = field(default_factory=dict)

    @property
    def exposed(self) -> str:
        """The name that a query uses."""
        return {"gauge": self.name, "counter": f"{self.name}_total", "info": f"{self.name}_info"}[self.kind]


class Served:
    """A metrics endpoint that answers until it is closed."""

    def __init__(self, server: WSGIServer) -> None:
        """Use `serve_metrics`."""
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)


def serve_metrics(state: Path, port: int) -> Served:
    """Answer Prometheus on 127.0.0.1 from a thread of its own; returns at once.

    Args:
        state: `FederationConfig.state`.
        port: to listen on; 0 for a free one.

    Raises:
        ConfigError: the port is taken.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import make_wsgi_app

    registry = CollectorRegistry(auto_describe=False)  # the default one would add what this process itself consumes
    registry.register(StatusCollector(state))
    try:
        server = make_server(LOOPBACK, port, make_wsgi_app(registry), _Server, handler_class=_Silent)
    except OSError as error:
        raise ConfigError(
            f"metrics_port: {LOOPBACK}:{port} cannot be listened on ({error.strerror}); name another, or 0 for none."
        ) from error
    return Served(server)


class StatusCollector:
    """Reads the status whenever Prometheus asks."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def describe(self) -> list[Metric]:
        """Nothing is promised: what is not known is left out."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What is known now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        families: dict[Kind, Any] = {
            "gauge": GaugeMetricFamily,
            "counter": CounterMetricFamily,
            "info": InfoMetricFamily,
        }
        for sample in self._samples():
            if not sample.values:
                continue
            if sample.kind == "info":
                metric = families["info"](sample.name, _HELP[sample.exposed])
                for values in sample.values:
                    metric.add_metric([], dict(zip(sample.labels, values, strict=True)))
            else:
                metric = families[sample.kind](sample.name, _HELP[sample.exposed], labels=sample.labels)
                for values, value in sample.values.items():
                    metric.add_metric(values, value)
            yield metric

    def _samples(self) -> list[Sample]:
        try:
            status, readable = read_status(self._state), 1.0
        except AlteredFile:
            status, readable = Status(), 0.0
        found = [Sample("partbook_status_readable", values={(): readable})]
        with contextlib.suppress(OSError):
            free = float(shutil.disk_usage(self._state).free)
            found.append(Sample("partbook_state_disk_free_bytes", values={(): free}))
        return found + samples(status, time.time())


def samples(status: Status, now: float) -> list[Sample]:
    """What a status says, as metrics; those without values are not known."""
    if not status.known:
        return [Sample("partbook_writer_alive", values={(): 0.0})]
    at_work = not status.stale and not (status.complete and now - status.written > 60)
    eta, privacy = status.eta(now), status.privacy
    plain: dict[str, float | None] = {
        "partbook_writer_alive": at_work,
        "partbook_status_written_timestamp_seconds": status.written,
        "partbook_round": status.round,
        "partbook_rounds": status.rounds or None,
        "partbook_rounds_finished": status.finished,
        "partbook_rounds_given_up": status.given_up,
        "partbook_round_seconds": status.round_seconds,
        "partbook_eta_seconds": eta,
        "partbook_update_norm": status.update_norm,
        "partbook_privacy_bounded": None if privacy is None else privacy.colluders is not None,
        "partbook_delta": None if privacy is None else privacy.delta,
    }
    counters = {
        "partbook_sent_bytes": status.sent,
        "partbook_received_bytes": status.received,
        "partbook_refusals": status.refusals,
    }
    kind = None if status.stale else status.exchange
    found = [Sample(name, values={(): float(value)}) for name, value in plain.items() if value is not None]
    found += [Sample(name, "counter", values={(): float(value)}) for name, value in counters.items()]
    found.append(
        Sample("partbook_federation", "info", ("federation", "mode"), {(status.federation, status.mode or ""): 1.0})
    )
    found.append(Sample("partbook_exchange", "info", ("kind",), {(_short(kind),): 1.0} if kind else {}))
    found.append(_by("partbook_exchange_seconds", "kind", {_short(k): v for k, v in status.seconds.items()}))
    found.append(_by("partbook_validation_nats_per_token", "label", dict(status.validation)))
    return found + _privacy(status) + _parties(status, now)


def _privacy(status: Status) -> list[Sample]:
    spent = status.privacy
    if spent is None:
        return []
    so_far = {"colluders": spent.colluders, "outsiders": spent.outsiders}
    planned = {"colluders": spent.planned_colluders, "outsiders": spent.planned_outsiders}
    return [_by("partbook_epsilon", "against", so_far), _by("partbook_epsilon_planned", "against", planned)]


def _parties(status: Status, now: float) -> list[Sample]:
    parties = status.parties
    waiting = {
        name: 0.0 if party.asked_at is None or status.stale else now - party.asked_at for name, party in parties.items()
    }
    sizes = {"sent": {n: p.sent for n, p in parties.items()}, "received": {n: p.received for n, p in parties.items()}}
    return [
        _by("partbook_party_here", "party", {n: p.here and not status.stale for n, p in parties.items()}),
        _by("partbook_party_waiting_seconds", "party", waiting),
        _by("partbook_party_late", "party", {name: status.late(name, now) for name in parties}),
        _by("partbook_party_refused", "party", {n: p.refusal is not None for n, p in parties.items()}),
        *(_by(f"partbook_party_{way}_bytes", "party", values, "counter") for way, values in sizes.items()),
    ]


def _by(name: str, label: str, values: dict[str, Any], kind: Kind = "gauge") -> Sample:
    return Sample(name, kind, (label,), {(key,): float(value) for key, value in values.items() if value is not None})


def _short(kind: str) -> str:
    return kind.removeprefix("query.")


def _documented() -> dict[str, str]:
    """Help texts by name, from the list at the top: it cannot lack one that is served."""
    found = {}
    for line in (__doc__ or "").splitlines():
        if line.startswith("    partbook_"):
            name, _, text = line.strip().partition(" ")
            found[name.partition("{")[0]] = text.strip()
    return found


_HELP: Final = _documented()


class _Server(WSGIServer):
    allow_reuse_address = True
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    timeout = 10  # seconds; requests are answered one after another

    def log_message(self, format: str, *args: object) -> None:
        """Nobody needs a line for every scrape."""
