"""`partbook`: one command, a sub-command for each person.

Each sub-command's module is imported only when it is the one that was asked for, so a node never loads the
server's packages, the server never loads a node's, and `partbook --help` loads neither.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click
import typer

COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    # name: (module:attribute of a typer.Typer, extra that provides it, one line of help)
    "demo": (
        "partbook.simulation.cli:demo",
        "simulation",
        "Four labels, one generator: the whole way, on this machine.",
    ),
    "demo-processes": (
        "partbook.simulation.demo_processes_cli:app",
        "simulation",
        "A coordinator, three labels and a custodian as processes of their own, with TLS.",
    ),
    "simulate": (
        "partbook.simulation.cli:simulate",
        "simulation",
        "A whole federation on this machine, out of vaults that lie on it.",
    ),
    "node": ("partbook.node.cli:app", "node", "A label's side: ingest recordings, take part, look after the vault."),
    "custodian": ("partbook.custodian.cli:app", "node", "The custodian's side: open agreed sums."),
    "coordinator": (
        "partbook.coordinator.cli:app",
        "coordinator",
        "The coordinator's side: plan rounds, add up, release.",
    ),
    "federation": (
        "partbook.identity.federation_cli:app",
        "node",
        "Invite, join, propose the next roster, and show who belongs to a federation.",
    ),
    "doctor": ("partbook.doctor_cli:app", "node", "Check a party's machine, and say what to do."),
    "keys": ("partbook.identity.cli:keys", "node", "Make a party's keys, and show what a key file is."),
    "roster": (
        "partbook.identity.cli:roster",
        "node",
        "Write, sign and check the list of who belongs to a federation.",
    ),
    "privacy": ("partbook.privacy.cli:app", "node", "Plan what a federation's noise costs, before anybody trains."),
    "release": (
        "partbook.generator.cli:release",
        "coordinator",
        "Pack and sign a trained generator, or verify one.",
    ),
    "serve": ("partbook.generator.cli:serve", "coordinator", "Offer a release over gRPC."),
    "generate": (
        "partbook.generator.cli:generate",
        "coordinator",
        "Write MIDI and WAV from a release or a server.",
    ),
    "evaluate": (
        "partbook.study.cli:app",
        "simulation",
        "Is it music, and whose? Hold pieces against human works.",
    ),
    "listen": (
        "partbook.evaluation.listening.cli:app",
        "node",
        "Make a blind listening test out of two folders, and score the answers.",
    ),
    "audit": (
        "partbook.simulation.audit.cli:app",
        "simulation",
        "Attack a federation, and hold what is found against its claim.",
    ),
    "baseline": (
        "partbook.baselines.cli:app",
        "simulation",
        "Train and score the models that the generator is held against.",
    ),
    "corpus": (
        "partbook.corpus.cli:app",
        "simulation",
        "Public works and their pools: show them, or write a pool as MIDI files.",
    ),
    "base": ("partbook.pretraining.cli:base", "simulation", "Make the public base model and tokeniser."),
}


class _LazyGroup(click.Group):
    """A group that knows its commands' names and help, and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        target, extra, _ = COMMANDS[cmd_name]
        module, attribute = target.split(":")
        try:
            application = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name and f"{module}.".startswith(f"{error.name}."):
                raise click.ClickException(
                    f"`partbook {cmd_name}` is not on this machine: what is installed here is another role's."
                ) from error
            if (error.name or "").startswith("partbook"):
                raise
            raise click.ClickException(
                f"`partbook {cmd_name}` needs the package {error.name!r}; "
                f"install it with: pip install 'partbook[{extra}]'"
            ) from error
        return typer.main.get_command(application)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="partbook")
def _partbook() -> None:
    """Train one music generator on the recordings of many labels, without any of them leaving home."""


def main() -> None:
    """Run the command line; foreseen errors end in one red line and exit code 2, Ctrl-C in 130."""
    from partbook import threads
    from partbook.errors import PartbookError

    threads.wait_passively()  # first of all: whatever loads OpenMP's runtime comes after it
    try:
        # Not click's standalone mode: that would turn Ctrl-C into exit code 1, which means a refusal here.
        code = _partbook(standalone_mode=False)
    except PartbookError as error:
        click.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
