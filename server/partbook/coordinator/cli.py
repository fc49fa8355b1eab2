"""`partbook coordinator …`: what a coordinator's operator types.

Exit codes: 0 done · 1 not as it should be (`status`: not running; `check`: something to mend; `run`: ended by hand) ·
2 an error that comes again until a person mends it · 3 an error that may be over next time (`run`: attempts used up,
nobody answers; `start`: a process cannot be kept up) · 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from partbook.errors import CoordinatorUnreachable, PartbookError, RunFailed, ServiceFailed

app = typer.Typer(
    help="The coordinator: one server that runs the rounds, and reads nobody's update.",
    no_args_is_help=True,
    add_completion=False,
)

MAY_PASS: Final = 3

_Home = Annotated[Path, typer.Option("--home", help="The coordinator's folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_HERE = Path()


@app.command()
def init(
    home: _Home = _HERE,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address that nodes call this machine by; may be given again.", show_default=False),
    ] = None,
    listen: Annotated[str | None, typer.Option(help="host:port to listen on; 0.0.0.0:9443 if left out.")] = None,
    roster: Annotated[Path | None, typer.Option(help="The roster, if there is one; HOME/roster.toml.")] = None,
    key: Annotated[Path | None, typer.Option(help="The identity key; HOME/keys/coordinator.pem.")] = None,
    seal_key: Annotated[Path | None, typer.Option(help="The custodian's NAME.seal.public.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of training.")] = 20,
    as_json: _Json = False,
) -> None:
    """Write federation.toml and server.toml, with comments and safe defaults. Nothing is overwritten."""
    from partbook.coordinator import home as homes

    # A roster that lies there already says who the custodian is, and whether there is one.
    roster = roster or home / "roster.toml"
    written = homes.init(
        home, roster=roster, key=key, seal_key=seal_key, hosts=tuple(host or ()), listen=listen, rounds=rounds
    )
    gone = homes.missing(homes.Home.open(home))
    if as_json:
        typer.echo(
            json.dumps({"written": [*map(str, written)], "missing": {str(path): how for path, how in gone.items()}})
        )
        return
    for path in written:
        typer.echo(f"Wrote {path}")
    for path, how in gone.items():
        typer.echo(f"Still missing: {path}\n  {how}")
    typer.echo("Read both files, put your figures in, and then: partbook coordinator start")


@app.command()
def start(home: _Home = _HERE, as_json: _Json = False) -> None:
    """Keep the coordinator's processes up, until SIGTERM or Ctrl-C. The rounds are run by `run`.

    A process that ends, or is killed, is started again. SIGHUP has the roster and the certificate read anew.
    With --json, one line once all listen.
    """
    from partbook.coordinator.home import Home
    from partbook.coordinator.starting import Start
    from partbook.coordinator.supervisor import stopping

    opened = Home.open(home)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)

    def announce() -> None:
        server = opened.server
        where = {
            "front": server.listen if server.front == "embedded" else None,
            "superlink": server.superlink,
            "metrics": f"http://127.0.0.1:{server.metrics_port}/metrics" if server.metrics_port else None,
        }
        if as_json:
            typer.echo(json.dumps({"ready": True, **where}))
        else:
            typer.echo(
                f"Ready. Front {where['front'] or '(your proxy)'}, SuperLink {where['superlink']}; Ctrl-C stops."
            )

    with stopping() as stop, _may_pass(ServiceFailed):
        Start(opened).run(stop, announce)


@app.command()
def run(home: _Home = _HERE, as_json: _Json = False) -> None:
    """Run the rounds that are still to do, and show how they go. Needs `start`.

    A run whose processes are killed is gone on with. Ctrl-C ends the watching only; `stop` ends the run.
    """
    from partbook.coordinator.home import Home
    from partbook.coordinator.running import run as run_rounds
    from partbook.coordinator.showing import Shown

    opened = Home.open(home)
    with _may_pass(RunFailed, CoordinatorUnreachable), Shown(opened, quiet=as_json) as shown:
        try:
            done = run_rounds(opened, shown.tell, shown.each)
        except KeyboardInterrupt:
            typer.echo("The run goes on. `partbook coordinator run` watches again, `stop` ends it.", err=True)
            raise typer.Exit(130) from None
    if as_json:
        runs = [str(identifier) for identifier in done.runs]
        typer.echo(json.dumps({"rounds": done.rounds, "complete": done.complete, "runs": runs}))
    if not done.complete:
        raise typer.Exit(1)


@app.command()
def stop(home: _Home = _HERE) -> None:
    """End the run that is under way. What its rounds led to stays; `run` goes on from there."""
    from partbook.coordinator.home import Home
    from partbook.coordinator.running import stop as stop_runs

    with _may_pass(CoordinatorUnreachable):
        ended = stop_runs(Home.open(home))
    typer.echo(f"Ended run {', '.join(map(str, ended))}." if ended else "No run is under way.")


@app.command()
def status(
    home: _Home = _HERE,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew each second, until Ctrl-C.")] = False,
    as_json: _Json = False,
) -> None:
    """Show where the rounds are, who is here, and what was spent; exit 0 if `start` runs, else 1."""
    from partbook.coordinator.home import Home
    from partbook.coordinator.showing import described, pictured

    opened = Home.open(home)
    if as_json:
        about = described(opened)
        typer.echo(json.dumps(about, ensure_ascii=False))
        raise typer.Exit(0 if about["started"] else 1)
    from rich.console import Console

    console = Console()
    if not watch:
        console.print(pictured(opened))
        raise typer.Exit(0 if described(opened)["started"] else 1)
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(pictured(opened), refresh=True)
            time.sleep(1)


@app.command()
def release(
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    home: _Home = _HERE,
    name: Annotated[str | None, typer.Option(help="What the release calls itself.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="What was trained on, in words; may be given again.", show_default=False)
    ] = None,
    delta: Annotated[
        float, typer.Option(help="δ at which ε is stated: below one over the number of recordings.")
    ] = 1e-6,
    pieces: Annotated[
        int, typer.Option(min=0, help="Pieces it writes, to say how they compare with the validation set; 0: none.")
    ] = 24,
    as_json: _Json = False,
) -> None:
    """Pack and sign the model that the rounds led to, with a summary of the training and what it cost in privacy."""
    from rich.console import Console

    from partbook.coordinator.home import Home
    from partbook.coordinator.releasing import release as release_model

    with Console(stderr=True).status("Packing") as status:
        packed = release_model(
            Home.open(home),
            out,
            delta=delta,
            name=name,
            sources=tuple(source or ()),
            pieces=pieces,
            on_step=lambda what: status.update(f"Is it music? {what}"),
        )
    about = {"release": packed.id, "folder": str(packed.path), "signer": packed.signer.fingerprint, **packed.about}
    if as_json:
        typer.echo(json.dumps(about, ensure_ascii=False))
        return
    privacy = packed.about["privacy"]
    spent = privacy["epsilon_colluders"]
    typer.echo(f"Release  {packed.id}  ({packed.name})")
    typer.echo(f"Signer   {packed.signer.fingerprint}")
    typer.echo(f"Rounds   {packed.about['training']['rounds']}")
    typer.echo(
        "Privacy  no bound: these rounds added no noise"
        if spent is None
        else f"Privacy  ε = {spent:.3g} at δ = {delta:g} for each recording"
    )
    if "music" in packed.about:
        typer.echo(f"Music    {_music(packed.about['music'])}")
    typer.echo(f"Wrote    {packed.path}")


def _music(about: Mapping[str, Any]) -> str:
    """The short evaluation in a line: how surely a classifier tells the release's pieces from human works."""
    auc = about["sets"]["The release"]["auc_features"]
    told = "too few pieces or works to say" if auc[0] is None else f"AUC {auc[0]:.2f} ({auc[1]:.2f} to {auc[2]:.2f})"
    return f"told from {about['works']} human works: {told}; 0.5 is not at all, 1 always"


@app.command()
def front(home: _Home = _HERE) -> None:
    """Be the front alone: TLS with client certificates, and the fleet's paths. `start` runs it."""
    from partbook.coordinator.home import Home

    opened = Home.open(home)
    from partbook.coordinator.front import serve

    serve((opened.server.host, opened.server.port), opened.server.superlink, opened.federation.roster, opened.tls)


@app.command()
def check(home: _Home = _HERE, as_json: _Json = False) -> None:
    """Check the two files, the keys, the roster and the ports, and say what to do; exit 0 if all is well, else 1."""
    from partbook.coordinator.checking import findings

    found = findings(home)
    good = all(each.good for each in found)
    if as_json:
        listed = [{"what": each.what, "good": each.good, "text": each.text} for each in found]
        typer.echo(json.dumps({"good": good, "findings": listed}, ensure_ascii=False))
    else:
        for each in found:
            typer.secho(f"{'ok  ' if each.good else 'MEND'}  {each.what}: {each.text}", fg=None if each.good else "red")
    raise typer.Exit(0 if good else 1)


@contextmanager
def _may_pass(*kinds: type[PartbookError]) -> Iterator[None]:
    """Errors that may be over next time end with an exit code of their own, for whoever starts us again."""
    try:
        yield
    except kinds as error:
        typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        raise typer.Exit(MAY_PASS) from error
