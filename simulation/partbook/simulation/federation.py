"""A whole federation in one process: the real ServerApp and ClientApps on the in-process grid."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from partbook.coordinator.app import make_app
from partbook.coordinator.rounds import Progress
from partbook.custodian.app import app as custodian_app
from partbook.custodian.app import close_custodians
from partbook.custodian.app import flower_config as custodian_flower_config
from partbook.custodian.opening import CustodianConfig
from partbook.node.app import app as client_app
from partbook.node.app import close_nodes, flower_config
from partbook.node.label import NodeConfig
from partbook.plan.federation import FederationConfig
from partbook.simulation.drops import Drop, Losses
from partbook.simulation.grid import COORDINATOR_ID, RUN_ID, Crossing, InProcessGrid


@dataclass(frozen=True, slots=True)
class Flow:
    """Messages of one kind in one direction between the coordinator and one member."""

    messages: int = 0
    total_bytes: int = 0
    largest_bytes: int = 0
    seconds: float = 0.0

    def plus(self, size: int, seconds: float = 0.0) -> Flow:
        """With one more message of `size` bytes, on which its sender worked so long."""
        return Flow(self.messages + 1, self.total_bytes + size, max(self.largest_bytes, size), self.seconds + seconds)


class Traffic:
    """Counts messages and bytes by member, direction and kind; keeps no contents."""

    def __init__(self, members: Mapping[int, str]) -> None:
        self._members = members
        self._lock = threading.Lock()
        self.flows: defaultdict[tuple[str, bool, str], Flow] = defaultdict(Flow)

    def observe(self, crossing: Crossing) -> None:
        """Count one message."""
        key = (self._members[crossing.node_id], crossing.inbound, crossing.kind)
        with self._lock:
            self.flows[key] = self.flows[key].plus(len(crossing.data), crossing.seconds)

    def of(self, member: str, *, inbound: bool) -> Flow:
        """All kinds of one member and direction together."""
        flows = [flow for (name, way, _), flow in self.flows.items() if name == member and way == inbound]
        return Flow(
            sum(f.messages for f in flows),
            sum(f.total_bytes for f in flows),
            max((f.largest_bytes for f in flows), default=0),
            sum(f.seconds for f in flows),
        )


def simulate(
    config: FederationConfig,
    nodes: Mapping[str, NodeConfig],
    custodian: CustodianConfig | None = None,
    *,
    drops: Sequence[Drop] = (),
    workers: int = 2,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_crossing: Callable[[Crossing], None] = lambda _: None,
) -> Traffic:
    """Run a federation's rounds; its state and adapter are in `config.state` afterwards.

    Args:
        config: the coordinator's.
        nodes: each member's.
        custodian: the custodian's, in sealed rounds.
        drops: members that fall away.
        workers: nodes that train at a time.
        on_progress: told where the loop is.
        on_crossing: told every message, with its bytes.

    Returns:
        Who exchanged how much.

    Raises:
        PartbookError: whatever ended the run; the coordinator's state is that of the last finished round.
    """
    config_path = written(config)
    ids = {COORDINATOR_ID + 1 + index: member for index, member in enumerate(sorted(nodes))}
    traffic = Traffic(ids)

    def observe(crossing: Crossing) -> None:
        traffic.observe(crossing)
        on_crossing(crossing)

    configs = {node_id: flower_config(nodes[member]) for node_id, member in ids.items()}
    others: dict[int, ClientApp] = {}
    if custodian is not None:
        office = COORDINATOR_ID + 1 + len(nodes)
        ids[office], others[office] = custodian.name, custodian_app
        configs[office] = custodian_flower_config(custodian)
    grid = InProcessGrid(
        client_app, configs, others=others, workers=workers, on_crossing=observe, lost=Losses(drops, ids)
    )
    context = Context(RUN_ID, COORDINATOR_ID, {}, RecordDict(), {"federation": str(config_path)})
    with closing(_Nodes()), grid:
        make_app(on_progress)(grid, context)
    return traffic


def written(config: FederationConfig) -> Path:
    """The coordinator's file, beside its state: paths in it mean the same wherever it is read from."""
    absolute = {name: value.absolute() for name, value in config if isinstance(value, Path)}
    path = config.state.absolute().parent / "federation.toml"
    config.state.mkdir(parents=True, exist_ok=True)
    config.model_copy(update=absolute).write(path)
    return path


class _Nodes:
    def close(self) -> None:
        close_nodes()
        close_custodians()
