"""The coordinator as a Flower ServerApp with its own loop.

`flwr run` and the simulator both call `app`; the run configuration names the coordinator's TOML file:

    federation = "/path/to/federation.toml"
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from partbook.coordinator.grid import GridTransport
from partbook.coordinator.rounds import Coordinator, Progress
from partbook.errors import ConfigError
from partbook.plan.federation import FederationConfig

log = logging.getLogger(__name__)


def _log_progress(progress: Progress) -> None:
    record = progress.record
    if record is not None:
        log.info("round %d of %d done: %s", progress.round, progress.rounds, record.validation)


def make_app(on_progress: Callable[[Progress], None] = _log_progress) -> ServerApp:
    """A ServerApp whose loop reports to `on_progress`."""
    application = ServerApp()

    @application.main()
    def main(grid: Grid, context: Context) -> None:
        path = context.run_config.get("federation")
        if not isinstance(path, str):
            raise ConfigError("The run configuration lacks `federation`; give the path of the coordinator's TOML file.")
        config = FederationConfig.read(Path(path))
        coordinator = Coordinator(config, on_progress)
        coordinator.run(GridTransport(grid, coordinator.parties))

    return application


app = make_app()
