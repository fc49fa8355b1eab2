"""An air-gap bundle: everything that one role installs, in one file that needs no network: `make bundle ROLE=node`.

    partbook-node-0.1.0/
        wheels/             every package, ours among them, for this machine's Python and processor
        requirements.txt    each one's version and SHA-256, as pip's hash-checking mode wants them
        LICENCES.txt        whose they are and under what terms; their texts stand under licences/
        install.sh          checks every file, installs them into an empty environment, and tries it
        units/              systemd units of the role
        SHA256SUMS          of every file above

A checksum that travels with what it sums says only that nothing was damaged on the way. So the digest of SHA256SUMS is
printed here, and goes to whoever installs by another way; `install.sh --expect DIGEST` holds the bundle against it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import Final

from deploy.role_wheel import ROLES, ROOT, build, project_of

_LICENCE_FILE: Final = re.compile(r"licen[cs]e|copying|notice", re.IGNORECASE)
_BLOCK: Final = 2**20  # bytes read at a time: some wheels are gigabytes


@dataclass(frozen=True, slots=True)
class Wheel:
    """One package of a bundle.

    Attributes:
        path: the wheel.
        name: as its metadata gives it.
        version: likewise, with the local part.
        licence: what its metadata says of its terms; `see licences/` where it says nothing short.
        texts: licence and notice files inside it.
    """

    path: Path
    name: str
    version: str
    licence: str
    texts: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Wheel:
        """Read a wheel's own metadata.

        Raises:
            ValueError: it has none, or more than one set.
        """
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            found = [name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            if len(found) != 1:
                raise ValueError(f"{path} is not a wheel: it has {len(found)} METADATA files; download it again.")
            fields = HeaderParser().parsestr(archive.read(found[0]).decode("utf-8", "replace"))
        texts = tuple(sorted(n for n in names if _LICENCE_FILE.search(PurePosixPath(n).name) and not n.endswith(".py")))
        return cls(path, fields["Name"], fields["Version"], _terms(fields), texts)


def gather(role: str, wheels: Path, options: Sequence[str] = ()) -> None:
    """Build our wheel and let pip bring every package it needs, at the project's pins, into `wheels`.

    Args:
        role: whose machine it is for.
        wheels: folder, filled.
        options: for `pip download`: `--platform`, `--python-version` and the like, for another machine than this.

    Raises:
        subprocess.CalledProcessError: pip could not; it has said why.
    """
    ours = build(project_of(role), wheels)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels), "--only-binary", ":all:"]
    pins = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *pins, *options, f"{ours}[{ROLES[role].extra}]"], check=True)  # noqa: S603


def assemble(role: str, wheels: Sequence[Path], folder: Path) -> str:
    """Lay a bundle out of `wheels` at `folder`, which must not exist.

    Returns:
        SHA-256 of SHA256SUMS, in hex: the one number that stands for all of it.

    Raises:
        FileExistsError: there is something at `folder`.
        ValueError: a file is no wheel, or a package is there twice.
    """
    packages = sorted(map(Wheel.read, wheels), key=lambda wheel: wheel.name.lower())
    names = [re.sub(r"[-_.]+", "-", package.name).lower() for package in packages]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))}: more than one version was given; begin with an empty folder.")
    (folder / "wheels").mkdir(parents=True)
    for package in packages:
        shutil.copyfile(package.path, folder / "wheels" / package.path.name)
    _write(folder / "requirements.txt", "".join(map(_pinned, packages)))
    _licences(packages, folder)
    _write(folder / "install.sh", _installer(role))
    (folder / "install.sh").chmod(0o755)
    (folder / "units").mkdir()
    for unit in units_of(role):
        shutil.copyfile(unit, folder / "units" / "-".join(unit.relative_to(ROOT / "deploy" / "systemd").parts))
    sums = "".join(f"{digest(path)}  {path.relative_to(folder)}\n" for path in _files(folder))
    _write(folder / "SHA256SUMS", sums)
    return digest(folder / "SHA256SUMS")


def pack(folder: Path, archive: Path) -> None:
    """Write `folder` as a tar file with nothing in it of who packed it or when: the same files, the same bytes."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = "root"
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in _files(folder):
            tar.add(path, f"{folder.name}/{path.relative_to(folder)}", filter=plain)


def units_of(role: str) -> list[Path]:
    """The systemd files that go with a role: its units, their drop-ins, and the account they run under."""
    systemd = ROOT / "deploy" / "systemd"
    own = {"coordinator": ["partbook-coordinator*", "partbook-rounds*"]}.get(role, [f"partbook-{role}*"])
    found = [path for pattern in own for path in systemd.glob(pattern)]
    inside = [path for folder in found if folder.is_dir() for path in folder.iterdir()]
    return sorted([*(path for path in found if path.is_file()), *inside, systemd / "partbook.sysusers.conf"])


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.bundle",
        description="Write an air-gap bundle; what follows -- goes to `pip download`.",
    )
    parser.add_argument("--role", choices=sorted(ROLES), default="node")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the bundle")
    parser.add_argument("--wheels", type=Path, help="a folder that holds every wheel; nothing is downloaded")
    parser.add_argument("options", nargs="*", help="for pip, after --")
    asked = parser.parse_args(arguments)
    version = project_of(asked.role)["project"]["version"].partition("+")[0]
    folder = asked.out / f"partbook-{asked.role}-{version}"
    if folder.exists():
        parser.error(f"{folder} exists already; take it away, or choose another --out")
    with tempfile.TemporaryDirectory() as scratch:
        wheels: Path = asked.wheels or Path(scratch)
        if asked.wheels is None:
            gather(asked.role, wheels, asked.options)
        found = assemble(asked.role, sorted(wheels.glob("*.whl")), folder)
    archive = folder.with_name(f"{folder.name}.tar")
    pack(folder, archive)
    sys.stdout.write(
        f"{archive}  {archive.stat().st_size / 1e6:.0f} MB\n"
        f"Read this digest to whoever installs it, by another way than the file takes:\n{found}\n"
    )


def _terms(fields: Message) -> str:
    if expression := fields["License-Expression"]:
        return str(expression)
    classified = [
        value.rpartition(" :: ")[2]
        for value in fields.get_all("Classifier", [])
        if value.startswith("License ::") and value != "License :: OSI Approved"
    ]
    # Some packages put the whole text into this field.
    named = (fields["License"] or "").strip()
    return ", ".join(classified) or (named if named and "\n" not in named and len(named) < 80 else "see licences/")


def _pinned(package: Wheel) -> str:
    return f"{package.name}=={package.version} --hash=sha256:{digest(package.path)}\n"


def _licences(packages: Sequence[Wheel], folder: Path) -> None:
    lines = []
    for package in packages:
        lines.append(f"{package.name} {package.version}: {package.licence}\n")
        with zipfile.ZipFile(package.path) as archive:
            for text in package.texts:
                place = folder / "licences" / package.name / text.replace("/", "_")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(archive.read(text))
                lines.append(f"    {place.relative_to(folder)}\n")
    _write(folder / "LICENCES.txt", "".join(lines))


def _installer(role: str) -> str:
    script = (ROOT / "deploy" / "install.sh").read_text(encoding="utf-8")
    return script.replace("@ROLE@", role).replace("@FOREIGN@", " ".join(ROLES[role].foreign))


def _files(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.rglob("*") if path.is_file()))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
