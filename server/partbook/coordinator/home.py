"""The coordinator's folder, HOME: two files to edit, and a place for everything that its processes keep.

HOME/federation.toml   what is trained, and with whom           (`partbook.plan.federation`)
HOME/server.toml       where things listen                      (`partbook.coordinator.settings`)
HOME/roster.toml, HOME/keys/, the custodian's seal              as federation.toml names them
HOME/tls/              the front's key and certificate, and members.pem: whom it lets in
HOME/state/            checkpoints, status and curves           (federation.toml: `state`)
HOME/link/             what Flower keeps: database, secret, bundle, logs; and the locks of our processes
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from partbook.coordinator.settings import ServerConfig
from partbook.errors import ConfigError
from partbook.identity.roster import Roster
from partbook.plan.federation import FederationConfig

_FEDERATION: Final = """\
# What this federation trains, and with whom. Relative paths begin at this file's folder.

roster = {roster}
key = {key}
{seal}
# sealed: the custodian opens sums for the labels, and this machine reads none of them.
# masked: this machine reads each round's sum, and never one label's part of it.
mode = {mode}

rounds = {rounds}        # in all; a run that is started again counts those already done
{threshold}
state = "state"

# validation = "validation"   # public recordings, a sub-folder per label; their loss is the curve that you see

timeout = 3600     # seconds for an exchange in which labels train
patience = 120     # seconds for any other, and for parties that fall away

# How much noise hides one recording. These figures err on the side of too much; write your own with
#   partbook privacy plan --epsilon 8 --delta 1e-6 --recordings N --rounds {rounds} --labels {labels} --toml
# and put what it prints in place of this section.
[training]
kind = "distributed"
noise_multiplier = 4.0
sampling = 0.05
batch = 16.0
clip = 0.3

# How the sum moves the model: found by the sweep in docs/figures.md, on styles that the base never saw.
[step]
rule = "adam"
learning_rate = 0.01
momentum = 0.9
second = 0.99
"""

_SERVER: Final = """\
# Where the coordinator's processes listen.

# The front: the one port that members and custodian connect to. TLS 1.3, and only parties of the roster are let in.
listen = {listen}

# Names and addresses that the front's certificate is for: what nodes write in `coordinator = "name:port"`.
hosts = [{hosts}]

# "embedded": the front is ours. "proxy": nginx or Caddy stands there instead; see deploy/proxy/.
front = "embedded"

# On this machine alone (127.0.0.1): Flower's SuperLink, and metrics for Prometheus (0: none).
superlink_port = 9444
metrics_port = 9445

# How often in a row a run may end without a finished round before it is given up, and seconds between two tries.
attempts = 5
wait = 30

# How long it waits before it asks again, or takes somebody for dead, in seconds. These hold where nothing is said.
# [timing]
# look_every = 1  # between two looks for nodes that are new or back
# repeat_after = 30  # without an answer, after which a question is repeated
# repeat_soon = 5  # the same at the least, where answers to such a question usually come sooner
# gone_after = 1.5  # without a sign of the ServerApp, after which its run is ended and gone on with
# at_once = 0.5  # before the run after one that was killed; doubled for each without a round
"""


@dataclass(frozen=True, slots=True)
class Home:
    """Where everything lies, and what the two files say.

    Attributes:
        folder: absolute.
        federation: as `federation.toml` says.
        server: as `server.toml` says.
    """

    folder: Path
    federation: FederationConfig
    server: ServerConfig

    @classmethod
    def open(cls, folder: Path) -> Home:
        """Read both files.

        Raises:
            ConfigError: one is missing, or a key in it is wrong.
        """
        folder = folder.resolve()
        path = folder / "federation.toml"
        if not path.exists():
            raise ConfigError(f"{folder} holds no federation.toml; run `partbook coordinator init --home {folder}`.")
        return cls(folder, FederationConfig.read(path), ServerConfig.read(folder / "server.toml"))

    @property
    def federation_file(self) -> Path:
        """What the ServerApp reads."""
        return self.folder / "federation.toml"

    @property
    def state(self) -> Path:
        """Checkpoints and status."""
        return self.federation.state

    @property
    def tls(self) -> Path:
        """The front's key and certificate."""
        return self.folder / "tls"

    @property
    def link(self) -> Path:
        """What Flower keeps."""
        return self.folder / "link"

    @property
    def logs(self) -> Path:
        """A file for each process."""
        return self.link / "logs"

    @property
    def services(self) -> Path:
        """Which processes run, as JSON."""
        return self.link / "services.json"

    @property
    def start_lock(self) -> Path:
        """Held by `start`."""
        return self.link / "start.lock"

    @property
    def run_lock(self) -> Path:
        """Held by `run`."""
        return self.link / "run.lock"

    @property
    def app_lock(self) -> Path:
        """Held by the ServerApp."""
        return self.link / "serverapp.lock"

    def roster(self) -> Roster:
        """The roster, signed by all, with this machine's key in it.

        Raises:
            ConfigError: it cannot be read, or lists another coordinator's key.
            UnsignedRoster: a signature is missing or wrong.
        """
        return Roster.read(self.federation.roster)


def init(
    folder: Path,
    *,
    roster: Path | None = None,
    key: Path | None = None,
    seal_key: Path | None = None,
    hosts: tuple[str, ...] = (),
    listen: str | None = None,
    rounds: int = 20,
) -> list[Path]:
    """Write `federation.toml` and `server.toml`, with comments and safe defaults; returns what was written.

    Args:
        folder: HOME; made where it is missing.
        roster, key, seal_key: where they are, or will be; in HOME where not given.
        hosts: names that the front's certificate is for.
        listen: `host:port` of the front.
        rounds: to train.

    Raises:
        ConfigError: one of the files is there already, or what was given does not fit together.
    """
    folder = folder.resolve()
    written = [folder / "federation.toml", folder / "server.toml"]
    for path in written:
        if path.exists():
            raise ConfigError(f"{path} is there already, and is never overwritten; edit it, or name another folder.")
    known = _known(roster, key) if roster is not None and roster.exists() else None
    custodian = known.custodian if known is not None else None
    sealed = known is None or custodian is not None
    seal = seal_key or folder / f"{custodian.name if custodian is not None else 'Custodian'}.seal.public"
    texts = (
        _FEDERATION.format(
            roster=_quoted(_placed(roster or folder / "roster.toml", folder)),
            key=_quoted(_placed(key or folder / "keys" / "coordinator.pem", folder)),
            seal=f"seal_key = {_quoted(_placed(seal, folder))}   # the custodian's\n" if sealed else "",
            mode=_quoted("sealed" if sealed else "masked"),
            rounds=rounds,
            threshold="# threshold = 3   # fewest labels whose sum may be opened; ⌊2n/3⌋ + 1 if not given",
            labels=len(known.members) if known is not None else 4,
        ),
        _SERVER.format(
            listen=_quoted(listen or ServerConfig().listen),
            hosts=", ".join(map(_quoted, hosts or ServerConfig().hosts)),
        ),
    )
    try:
        for path in (folder, folder / "keys", folder / "link"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, text in zip(written, texts, strict=True):
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error.strerror}); choose another folder.") from error
    try:
        Home.open(folder)  # what was asked for on the command line is as wrong as what is written in a file
    except ConfigError:
        for path in written:
            path.unlink()
        raise
    return written


def missing(home: Home) -> dict[Path, str]:
    """Files that the configuration names and nobody has put there yet, and what makes them."""
    config = home.federation
    made = {
        config.key: f"partbook keys new coordinator --out {config.key.parent}",
        config.roster: "partbook federation propose, from the entries that came back",
    }
    if config.mode == "sealed" and config.seal_key is not None:
        made[config.seal_key] = "partbook keys seal, which the custodian runs; ask for the public file"
    return {path: how for path, how in made.items() if not path.exists()}


def _known(path: Path, key: Path | None) -> Roster:
    found = Roster.read(path, verify=False)
    if key is not None and key.exists():
        from partbook.identity.keys import IdentityKey
        from partbook.identity.passphrase import passphrase_of

        if IdentityKey.load(key, passphrase_of(key)).public != found.coordinator:
            raise ConfigError(f"--key: {key} is not the coordinator's key in the roster {path}.")
    return found


def _placed(path: Path, folder: Path) -> str:
    """As the file in `folder` names it."""
    path = Path(os.path.abspath(path))
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)  # JSON's strings are TOML's basic strings
