"""The coordinator as a Flower ServerApp with its own loop.

`flwr run` and the simulator both call `app`; the run configuration names the coordinator's TOML file:

    federation = "/path/to/federation.toml"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from partbook.coordinator.grid import GridTransport
from partbook.coordinator.rounds import Coordinator, Progress
from partbook.coordinator.settings import ServerConfig
from partbook.coordinator.timing import ServerTiming
from partbook.coordinator.watching import Unwatched, Watch
from partbook.errors import ConfigError
from partbook.plan.federation import FederationConfig

STARTING: Final = {"patience": 600.0}
"""Seconds for which a simulation waits until all have said who they are. An engine loses no question, but may need more
than a minute until its processes have imported torch; one that fails says so, and is not waited for."""


class _Told(Unwatched):
    """Progress alone, for whoever runs a simulation."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._tell = on_progress

    def progress(self, progress: Progress) -> None:
        """See `Watch`."""
        self._tell(progress)


def make_app(on_progress: Callable[[Progress], None] | None = None, *, patient: bool = False) -> ServerApp:
    """A ServerApp of the round loop.

    Args:
        on_progress: told where the loop is; `state/status.json` and its curves where not given.
        patient: wait `config.patience` seconds for parties that are not there, or fall away. A simulation does not.
    """
    application = ServerApp()

    @application.main()
    def main(grid: Grid, context: Context) -> None:
        path = context.run_config.get("federation")
        if not isinstance(path, str):
            raise ConfigError("The run configuration lacks `federation`; give the path of the coordinator's TOML file.")
        config = FederationConfig.read(Path(path))
        with _watching(config, on_progress) as watch:
            try:
                coordinator = Coordinator(config, watch.progress)
                limits = dict.fromkeys(("patience", "grace", "short"), config.patience) if patient else STARTING
                memory = config.state / "nodes.json" if patient else None
                transport = GridTransport(
                    grid,
                    coordinator.parties,
                    coordinator.greeter,
                    watch=watch,
                    memory=memory,
                    held=patient,
                    timing=_timing(Path(path)) if patient else ServerTiming(),
                    **limits,
                )
                coordinator.run(transport)
            except Exception as error:
                if patient:
                    from partbook.coordinator.failure import write_failure

                    write_failure(config.state, error)
                raise

    return application


def _timing(federation: Path) -> ServerTiming:
    """As the `server.toml` beside a `federation.toml` says; a researcher's own `flwr run` has none."""
    path = federation.with_name("server.toml")
    return ServerConfig.read(path).timing if path.exists() else ServerTiming()


@contextmanager
def _watching(config: FederationConfig, on_progress: Callable[[Progress], None] | None) -> Iterator[Watch]:
    """Who is told; for an operator's run that is a log, a status file and curves."""
    if on_progress is not None:
        yield _Told(on_progress)
        return
    from partbook import logs
    from partbook.coordinator.status import StatusWriter

    logs.configure("coordinator", "coordinator", as_json=True)
    with closing(StatusWriter.of(config)) as writer:
        yield writer


app = make_app(patient=True)
