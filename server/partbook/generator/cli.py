"""`partbook release`, `partbook serve` and `partbook generate`.

Everything heavy is imported by the command that needs it: help starts at once, and only `serve` and
`generate --server` load gRPC.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from partbook.errors import ConfigError, GenerationError, InputError, IntegrityError
from partbook.identity.passphrase import given_passphrase, passphrase_of
from partbook.threads import one_thread

if TYPE_CHECKING:
    from partbook.generator.asking import PieceRequest
    from partbook.generator.composing import Bar, Piece
    from partbook.generator.release import Release
    from partbook.identity.keys import IdentityKey, PublicIdentity

release = typer.Typer(
    add_completion=False, help="Pack and sign a trained generator, or verify one.", no_args_is_help=True
)
serve = typer.Typer(add_completion=False, help="Offer a release over gRPC.")
generate = typer.Typer(add_completion=False, help="Write MIDI and WAV from a release or a server.")

_SIGNER = typer.Option(
    "--signer",
    help="Public key (PEM) that the release must be signed with. Without it the key in the release is "
    "trusted: compare its fingerprint with its maker's.",
)


@release.command()
def pack(
    adapter: Annotated[Path, typer.Option(help="Trained adapter, as a run writes it (safetensors).")],
    key: Annotated[Path, typer.Option(help="Identity key (PEM) that signs the release.")],
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    base: Annotated[Path | None, typer.Option(help="Base model's folder; the shipped one if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="What the release calls itself.")] = None,
    about: Annotated[Path | None, typer.Option(help="JSON object to include: training, locks, sources, …")] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make the key first, at --key.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put base model, tokeniser and adapter together and sign them."""
    from partbook.generator.release import pack_release
    from partbook.identity.keys import IdentityKey

    described = _json_object(about) if about else {}
    if name:
        described["name"] = name
    if out.exists():  # before a key is made for nothing
        raise ConfigError(f"{out} exists already; a release is never overwritten: choose another folder.")
    identity = _new_key(key) if new_key else IdentityKey.load(key, passphrase_of(key))
    if base is None:
        from partbook.model.checkpoint import BASE

        base = BASE
    with _status("Checking and signing"):
        packed = pack_release(base, adapter, out, identity, described)
    _show(packed, pinned=True, as_json=as_json)


@release.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RELEASE", help="The release's folder.")],
    signer: Annotated[Path | None, _SIGNER] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a release's signature and every file; exit 0 if all is as its maker signed it, else 2."""
    try:
        opened = _open(folder, signer)
    except IntegrityError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"verified": False, "error": type(error).__name__, "reason": str(error)}))
        raise typer.Exit(2) from error
    _show(opened, pinned=signer is not None, as_json=as_json)


@serve.command()
def run_server(
    folder: Annotated[Path, typer.Argument(metavar="RELEASE", help="The release's folder.")],
    address: Annotated[str, typer.Option(help="host:port to listen on; port 0 takes a free one.")] = "127.0.0.1:50051",
    signer: Annotated[Path | None, _SIGNER] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="TLS certificate chain (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="TLS private key (PEM).")] = None,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Pieces written at a time; more are refused.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object once serving.")] = False,
) -> None:
    """Offer a release over gRPC until SIGTERM or Ctrl-C; pieces being written then are finished first."""
    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("--tls-cert and --tls-key belong together; give both or neither.")
    one_thread()  # for each piece
    opened = _open(folder, signer)
    with _status("Loading the generator"):
        from partbook.generator.serving import GeneratorServer, TlsFiles, is_loopback

        tls = TlsFiles(tls_cert, tls_key) if tls_cert and tls_key else None
        server = GeneratorServer(opened, address, tls=tls, most_at_once=at_once)

    def announce() -> None:
        if as_json:
            where = {"release": opened.id, "signer": opened.signer.fingerprint, "address": server.address}
            typer.echo(json.dumps(where))
        else:
            typer.echo(f"Release  {opened.id}  ({opened.name})")
            typer.echo(f"Signer   {opened.signer.fingerprint}{'' if signer else '  (compare it with its maker)'}")
            typer.echo(f"Serving  {server.address}  ({'TLS' if tls else 'no TLS'}; Ctrl-C stops)")
        if tls is None and not is_loopback(address):
            typer.secho("Without TLS, anyone on the way can read and change this.", fg="yellow", err=True)

    server.serve_until_signal(announce)


@generate.command()
def run_generate(
    out: Annotated[Path, typer.Option(help="Folder for NAME.mid, NAME.wav and NAME.json.")],
    release_folder: Annotated[Path | None, typer.Option("--release", help="Write with this release, here.")] = None,
    server: Annotated[str | None, typer.Option(help="Or let the server at host:port write.")] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Or write with the shipped base, before any federation.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Same seed, same piece; drawn and recorded if left out.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="New music to write at most, up to the next bar line; at most 600. 30 if left out without --bars."
        ),
    ] = None,
    bars: Annotated[int | None, typer.Option(help="Bars to plan for; the piece ends after them at the latest.")] = None,
    genre: Annotated[
        str | None, typer.Option(help="Such as dance, chorale or song; the model's choice if left out.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Such as G, Bb or F#m.")] = None,
    metre: Annotated[str | None, typer.Option(help="Such as 3/4 or 6/8; not with --continue.")] = None,
    tempo: Annotated[float | None, typer.Option(help="Quarter notes a minute; not with --continue.")] = None,
    program: Annotated[int | None, typer.Option(help="General MIDI program, from 0; not with --continue.")] = None,
    density: Annotated[float | None, typer.Option(help="About so many notes a quarter note.")] = None,
    polyphony: Annotated[float | None, typer.Option(help="About so many notes at once.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Stop after this many tokens even if shorter.")] = 4096,
    temperature: Annotated[float, typer.Option(help="Lower keeps closer to the likely.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this total probability.")] = 0.98,
    top_k: Annotated[int, typer.Option(help="Draw from this many of the likeliest tokens; 0 for all.")] = 0,
    min_p: Annotated[
        float, typer.Option(help="Leave out tokens less likely than this share of the likeliest; 0 for none.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1, pitches written lately become less likely; at most 10.")
    ] = 1.0,
    repetition_window: Annotated[int, typer.Option(help="How many tokens back the penalty looks.")] = 64,
    beam_width: Annotated[
        int,
        typer.Option(
            "--beam",
            help="Search the likeliest piece with so many beams, such as 5, instead of drawing one: the same whatever "
            "the seed, and plainer. At most 16; 0 draws.",
        ),
    ] = 0,
    go_on: Annotated[Path | None, typer.Option("--continue", help="MIDI file to go on from.")] = None,
    prime: Annotated[
        Path | None,
        typer.Option(help="Recording to have heard just before; its last 8 s count (a server gets their mel)."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="File name without ending; piece-SEED if left out.")] = None,
    signer: Annotated[Path | None, _SIGNER] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Certificates (PEM) to trust: the server speaks TLS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write one piece: MIDI, WAV, and a JSON file that says where they came from."""
    if (release_folder is not None) + (server is not None) + base != 1:
        raise ConfigError("Say who writes: give one of --release FOLDER, --server HOST:PORT and --base.")
    if release_folder is None and signer is not None:
        raise ConfigError("--signer checks a release on this machine; give it with --release.")
    if server is None and tls_ca is not None:
        raise ConfigError("--tls-ca is for a server; give it with --server.")
    from partbook.generator.pieces import refuse_taken, write_piece

    seed = secrets.randbelow(2**32) if seed is None else seed
    name = name or f"piece-{seed}"
    refuse_taken(out, name)
    opened = _open(release_folder, signer) if release_folder else None
    origin: dict[str, Any] = {"signer": opened.signer.fingerprint} if opened else {} if base else {"server": server}
    with _status("Loading"):
        from partbook.generator import asking, composing, prompts

        prompt_midi = _bytes(go_on) if go_on else None
        if prompt_midi is not None:
            origin["continues"] = hashlib.sha256(prompt_midi).hexdigest()
        if prime is not None:
            origin["primed_by"] = hashlib.sha256(_bytes(prime)).hexdigest()
        request = asking.PieceRequest(
            seed=seed,
            seconds=asking.seconds_of(seconds, bars),
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            prompt=prompts.prompt_of_midi(prompt_midi) if prompt_midi is not None else None,
            memory=prompts.memory_of_audio(prime) if prime is not None else None,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            repetition_window=repetition_window,
            beam_width=beam_width,
            bars=bars,
            genre=genre,
            key=key,
            metre=asking.metre_of(metre),
            tempo=tempo,
            program=program,
            density=density,
            polyphony=polyphony,
        )
        if opened is not None or base:
            from partbook.generator.release import load_generator, of_base
            from partbook.model.checkpoint import BASE

            one_thread()
            events = composing.compose(of_base(BASE) if opened is None else load_generator(opened), request)
        elif server is not None:
            from partbook.generator.remote import compose_remotely

            events = compose_remotely(server, request, prompt_midi=prompt_midi, authorities=tls_ca)
    piece = _follow(events, request)
    with _status("Rendering"):
        midi, wav, described = write_piece(out, name, piece, origin)
    if as_json:
        files = {"midi": str(midi), "wav": str(wav), "json": str(described)}
        typer.echo(json.dumps({"seed": piece.request.seed, "seconds": piece.seconds, **files}))
    else:
        typer.echo(f"{wav}  {piece.seconds:.1f} s, seed {piece.request.seed}, release {piece.release_id[:16]}…")
        typer.echo(f"{midi}\n{described}")


def _follow(events: Iterator[Bar | Piece], request: PieceRequest) -> Piece:
    """Show the seconds as they are written; return the piece that ends the stream."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from partbook.generator.composing import Piece

    columns = (
        TextColumn("Writing"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s of music"),
        TimeElapsedColumn(),
    )
    began = 0.0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Writing", total=request.seconds)
        for event in events:
            if isinstance(event, Piece):
                return event
            if event.given:
                began = event.end
            progress.update(task, completed=min(event.end - began, request.seconds))
    raise GenerationError("The server ended the stream without a piece; ask again.")


def _open(folder: Path, signer: Path | None) -> Release:
    from partbook.generator.release import open_release
    from partbook.identity.keys import PublicIdentity

    expected: PublicIdentity | None = PublicIdentity.load(signer) if signer else None
    with _status("Verifying the release"):
        return open_release(folder, signer=expected)


def _show(opened: Release, *, pinned: bool, as_json: bool) -> None:
    if as_json:
        found = {
            "verified": True,
            "release": opened.id,
            "signer": opened.signer.fingerprint,
            "signer_expected": pinned,
            "path": str(opened.path),
            "about": dict(opened.about),
        }
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    table = Table.grid(padding=(0, 2))
    locks = opened.about.get("locks")
    shown = {
        "Release": opened.id,
        "Name": opened.name,
        "Created": str(opened.about.get("created", "not said")),
        "Locks": ", ".join(f"{lock} {'on' if on else 'off'}" for lock, on in locks.items())
        if isinstance(locks, dict)
        else "not said",
        "Signer": opened.signer.fingerprint,
        "": "the signer you expect"
        if pinned
        else "no --signer given: compare this fingerprint with the maker's before you trust the release",
    }
    for label, value in shown.items():
        table.add_row(label, value)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)


def _new_key(path: Path) -> IdentityKey:
    from partbook.identity.keys import IdentityKey

    key = IdentityKey.generate()
    key.save(path, given_passphrase())
    return key


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not a JSON object; write {{…}}.")
    return value


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _status(doing: str) -> Any:
    return Console(stderr=True).status(doing)
