"""The air-gap bundle: packed from wheels that are there, installed in an empty environment with no network."""

import hashlib
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from commands import DEPLOY
from deploy import bundle
from deploy.role_wheel import ROLES, build, project_of

pytestmark = pytest.mark.timeout(300)  # wheels are built

SMALL = ("click", "typer", "rich", "markdown-it-py", "mdurl", "Pygments", "shellingham", "typing_extensions")


def repacked(name: str, folder: Path) -> None:
    """The wheel that an installed package was installed from, near enough for pip."""
    found = importlib.metadata.distribution(name)
    files = [file for file in found.files or () if ".." not in file.parts and "__pycache__" not in file.parts]
    wheel = folder / f"{found.metadata['Name'].replace('-', '_')}-{found.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in files:
            if file.name not in ("INSTALLER", "REQUESTED", "direct_url.json"):
                archive.writestr(file.as_posix(), file.read_binary())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node's wheel as it is but for what it asks for, which is what its command line needs, and that."""
    folder = tmp_path_factory.mktemp("wheels")
    project = project_of("node")
    project["project"]["dependencies"] = ["typer"]
    project["project"]["optional-dependencies"] = {"node": []}
    build(project, folder)
    needed = {
        re.split(r"[ ;<>=!~\[(]", line)[0]
        for n in SMALL
        for line in importlib.metadata.requires(n) or ()
        if "extra ==" not in line
    }
    for name in {*SMALL, *(n for n in needed if n.startswith("annotated"))}:
        repacked(name, folder)
    return folder


@pytest.fixture
def packed(wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    """A bundle, unpacked where it is to be installed, and the digest that was read out."""
    bundle.main(["--role", "node", "--wheels", str(wheels), "--out", str(tmp_path / "dist")])
    digest = capsys.readouterr().out.splitlines()[-1]
    (archive,) = (tmp_path / "dist").glob("*.tar")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "carried", filter="data")
    (folder,) = (tmp_path / "carried").iterdir()
    return folder, digest


def install(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "install.sh", "--python", sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        # A network that answers nothing: whatever asks for it fails.
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder.parent), "https_proxy": "http://127.0.0.1:1"},
    )


def test_it_installs_with_no_network_and_what_it_installs_runs(packed: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = packed
    done = install(folder, "--expect", digest, str(tmp_path / "partbook"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "+node" in done.stdout
    run = subprocess.run(
        [tmp_path / "partbook" / "bin" / "partbook", "--help"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    again = install(folder, str(tmp_path / "partbook"))
    assert again.returncode == 2
    assert "exists" in again.stderr


@pytest.mark.parametrize("name", ["wheels", "requirements.txt", "install.sh", "SHA256SUMS"])
def test_a_bundle_that_was_changed_on_the_way_is_not_installed(
    packed: tuple[Path, str], name: str, tmp_path: Path
) -> None:
    folder, digest = packed
    path = folder / name
    path = sorted(path.iterdir())[0] if path.is_dir() else path
    path.write_bytes(path.read_bytes() + b"\n")
    done = install(folder, "--expect", digest, str(tmp_path / "partbook"))
    assert done.returncode == 2, done.stdout
    assert "Nothing was installed" in done.stderr
    assert not (tmp_path / "partbook").exists()


def test_changed_sums_are_found_out_by_the_digest_alone(packed: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = packed
    terms = folder / "LICENCES.txt"
    sums = (folder / "SHA256SUMS").read_text()
    before = bundle.digest(terms)
    terms.write_text("changed")
    (folder / "SHA256SUMS").write_text(sums.replace(before, bundle.digest(terms)))
    done = install(folder, "--expect", digest, str(tmp_path / "partbook"))
    assert done.returncode == 2
    assert "not the one you were read" in done.stderr


def test_pip_holds_each_package_against_its_hash_itself(packed: tuple[Path, str]) -> None:
    folder, _ = packed
    pins = folder / "requirements.txt"
    flags = ["--no-index", "--find-links", str(folder / "wheels"), "--require-hashes", "--no-deps"]
    assert " ".join(flags).replace(str(folder), '"$here').replace("wheels", 'wheels"') in re.sub(
        r"\s+\\?\s*", " ", (folder / "install.sh").read_text()
    )
    dry = [sys.executable, "-m", "pip", "install", "--isolated", "--dry-run", "--ignore-installed", *flags]
    pins.write_text(re.sub(r"(?<=sha256:)[0-9a-f]{64}", "0" * 64, pins.read_text(), count=1))
    bad = subprocess.run([*dry, "--requirement", pins], capture_output=True, text=True, check=False)
    assert bad.returncode != 0
    assert "HASH" in bad.stderr.upper()


def test_every_file_is_summed_and_every_package_accounted_for(packed: tuple[Path, str], wheels: Path) -> None:
    folder, digest = packed
    assert hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest() == digest
    summed = {line[66:] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert summed == there - {"SHA256SUMS"}
    pins = (folder / "requirements.txt").read_text()
    terms = (folder / "LICENCES.txt").read_text()
    for wheel in wheels.glob("*.whl"):
        found = bundle.Wheel.read(wheel)
        assert f"{found.name}=={found.version} --hash=sha256:{bundle.digest(wheel)}\n" in pins
        assert f"{found.name} {found.version}: " in terms
    assert "partbook 0.1.0+node: Apache-2.0" in terms
    assert (folder / "units" / "partbook-node.service").exists()
    assert not list(folder.glob("units/*coordinator*"))


def test_the_same_wheels_make_the_same_file(wheels: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        bundle.main(["--role", "node", "--wheels", str(wheels), "--out", str(tmp_path / name)])
    (first,), (second,) = ((tmp_path / name).glob("*.tar") for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_two_versions_of_a_package_are_refused(wheels: Path, tmp_path: Path) -> None:
    (one,) = wheels.glob("mdurl-*.whl")
    with pytest.raises(ValueError, match="mdurl"):
        bundle.assemble("node", [one, one], tmp_path / "bundle")


@pytest.mark.parametrize("role", ROLES)
def test_each_role_gets_its_own_units_and_an_account_for_them(role: str) -> None:
    names = {path.relative_to(DEPLOY / "systemd").as_posix() for path in bundle.units_of(role)}
    assert {f"partbook-{role}.service", "partbook.sysusers.conf"} <= names
    assert ("partbook-rounds.service" in names) == (role == "coordinator")
    others = set(ROLES) - {role}
    assert not [name for name in names for other in others if other in name]
