"""A federation on Flower's simulation engine: the same ServerApp and ClientApps, worked on by Ray.

The in-process engine is faster, and enough for a thousand nodes (`partbook.simulation.grid`). Ray is the way past one
machine: with RAY_ADDRESS set to a cluster's head, nodes train on all of its machines. Everything that parties keep
(vaults, keys, ledgers, states, the base model) must then lie under the same paths everywhere, on a file system that
all machines share and that keeps `flock`. A simulation only: labels' real nodes never share anything.

On the engine a ClientApp is told a partition number and nothing else. The simulation writes a list of all parties'
configurations, and `EveryParty` looks its own up there. A real node has neither: nothing in `partbook.node` knows of
either.

Ray gives each message to whichever of its processes is free. So a party is opened for one message, under a lock, and
closed again: all it must remember is on the disk before it answers, as for a node that is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import logging
import os
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import tomli_w
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from partbook.coordinator.app import make_app
from partbook.coordinator.rounds import Progress
from partbook.custodian.app import app as custodian_app
from partbook.custodian.app import close_custodians
from partbook.custodian.app import flower_config as custodian_values
from partbook.custodian.opening import CustodianConfig
from partbook.errors import ConfigError, PartbookError, RunFailed
from partbook.node.app import app as node_app
from partbook.node.app import close_nodes, flower_config
from partbook.node.label import NodeConfig
from partbook.plan.federation import FederationConfig
from partbook.simulation.federation import written
from partbook.threads import exactly

PARTIES: Final = "PARTBOOK_SIMULATED_PARTIES"
"""The environment variable that names the list of parties; set for Ray's processes alone."""

PARTITION: Final = "partition-id"
"""What Flower's simulation engine tells a node; a SuperNode is told nothing of the kind."""

STARTS: Final = 3
"""How often Ray is started on this machine: it gives its own processes half a minute, which a busy machine may not."""

Values = dict[str, str | int | float | bool]


class EveryParty(ClientApp):
    """Each party of a simulated federation, by its partition: the labels' nodes, and after them the custodian."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the party whose partition this is.

        Raises:
            ConfigError: this is no simulation of ours.
        """
        values, threads = _party(context)
        exactly(threads)
        own = Context(context.run_id, context.node_id, values, context.state, {})
        with _alone(values):
            try:
                return (custodian_app if "custodian" in values else node_app)(message, own)
            finally:
                close_nodes()
                close_custodians()


app = EveryParty()


def simulate_on_ray(
    config: FederationConfig,
    nodes: Mapping[str, NodeConfig],
    custodian: CustodianConfig | None = None,
    *,
    workers: int = 2,
    threads: int = 1,
    gpus: float = 0.0,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Run a federation's rounds; its state and adapter are in `config.state` afterwards.

    With the same seeds and without noise the adapter is that of `partbook.simulation.federation.simulate`, bit for
    bit, where torch uses as many threads there.

    Args:
        config: the coordinator's.
        nodes: each member's.
        custodian: the custodian's, in sealed rounds.
        workers: processes on this machine, each of which answers one message at a time. A cluster has as many as its
            cores allow.
        threads: of torch in each, and cores that Ray counts for it.
        gpus: that each takes: a part of one, or none, and then Ray hides them all.
        on_progress: told where the loop is.

    Raises:
        ConfigError: Ray is not installed, or its cluster cannot be reached.
        RunFailed: the engine itself failed.
        PartbookError: whatever else ended the run; the coordinator's state is that of the last finished round.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--engine ray needs Ray: install `partbook[ray]`, or leave the option out.")
    federation = written(config)
    listed = federation.with_name("parties.toml")
    parties = [flower_config(_absolute(nodes[member])) for member in sorted(nodes)]
    parties += [] if custodian is None else [custodian_values(_absolute(custodian))]
    listed.write_text(tomli_w.dumps({"threads": threads, "party": parties}))
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        told: Values = {"federation": str(federation)}
        make_app(on_progress)(grid, Context(context.run_id, context.node_id, {}, RecordDict(), told))

    with _engine(listed, workers, threads) as run_simulation:
        try:
            run_simulation(
                server_app=server,
                client_app=app,
                num_supernodes=len(parties),
                backend_config={"client_resources": {"num_cpus": threads, "num_gpus": gpus}},
            )
        except PartbookError:
            raise
        except Exception as error:
            raise RunFailed(
                f"Flower's simulation engine ended the run ({error}); what was done is kept in {config.state}. Its log "
                "and Ray's, below /tmp/ray, say more."
            ) from error


@contextlib.contextmanager
def _engine(listed: Path, workers: int, threads: int) -> Iterator[Callable[..., None]]:
    """Ray, started or joined, and Flower's engine, which would start it without knowing our parties."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Said once for all: processes that take no GPU see none, whatever later versions of Ray do.
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "1"
    import ray
    from flwr.simulation import run_simulation
    from flwr.supercore import telemetry

    # Flower looks at the environment when it is first imported, which may have been before anybody could set it.
    telemetry.FLWR_TELEMETRY_ENABLED = "0"
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.ERROR)  # it would advise `flwr run`, which needs a SuperLink
    given: dict[str, Any] = {}
    if "RAY_ADDRESS" not in os.environ:
        given = {"num_cpus": workers * threads, "_node_ip_address": "127.0.0.1", "include_dashboard": False}
    environment = {PARTIES: str(listed), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    given |= {"runtime_env": {"env_vars": environment}, "log_to_driver": False, "logging_level": logging.ERROR}
    for left in reversed(range(1 if "RAY_ADDRESS" in os.environ else STARTS)):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Tip: ", FutureWarning)  # about the same thing
                ray.init(**given)
            break
        except Exception as error:  # Ray's own "timed out during startup" is no more than that
            ray.shutdown()
            if not left:
                where = os.environ.get("RAY_ADDRESS", "this machine")
                raise ConfigError(
                    f"Ray on {where} cannot be used ({error}); look at `ray status`, and at RAY_ADDRESS."
                ) from error
    try:
        yield run_simulation
    finally:
        ray.shutdown()
        log.setLevel(level)


def _party(context: Context) -> tuple[Values, int]:
    """The configuration of this context's party, and torch's threads."""
    partition, listed = context.node_config.get(PARTITION), os.environ.get(PARTIES)
    if partition is None or listed is None:
        raise ConfigError(
            "This app plays all parties of a simulation, and nothing here says which; labels run `partbook node start`."
        )
    found = tomllib.loads(Path(listed).read_text())
    return found["party"][int(partition)], found["threads"]


@contextlib.contextmanager
def _alone(values: Values) -> Iterator[None]:
    """Wait until no other process answers for this party: a question may be repeated while the first is worked on."""
    otherwise = Path(str(values["record"])).parent if "custodian" in values else values["vault"]
    kept = Path(str(values.get("state", otherwise)))
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (kept / "engine.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _absolute(config: Any) -> Any:
    """With paths that mean the same in whatever folder a process works."""
    paths = {each.name: getattr(config, each.name) for each in fields(config)}
    return replace(config, **{name: path.resolve() for name, path in paths.items() if isinstance(path, Path)})
