"""The Dockerfiles, and what the images they make would hold: the role's own wheel, installed where nothing else is."""

import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pathspec
import pytest
from commands import DEPLOY, ROOT, parse
from deploy.role_wheel import ROLES, build, project_of
from dockerfiles import Stage, read

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
STATE = "/var/lib/partbook"


@pytest.fixture(scope="module", params=sorted(ROLES))
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stages(role: str) -> list[Stage]:
    return read(DEPLOY / "docker" / f"{role}.Dockerfile")


@pytest.fixture(scope="module")
def installed(role: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The role's wheel, unpacked as an installation would be."""
    folder = tmp_path_factory.mktemp(role)
    wheel = build(project_of(role), folder)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(installed: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with the role's wheel and the packages there are, but not the source tree.

    -S: the editable installation's .pth file, which would bring the source tree, is read by `site`.
    """
    there = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    head = f"import sys; sys.path[:0] = {there!r}\n"
    command = [sys.executable, "-I", "-S", "-c", head + code, *arguments]
    return subprocess.run(command, cwd=installed.parent, capture_output=True, text=True, check=False)


def test_an_image_holds_its_own_role_and_nothing_of_the_others(role: str, installed: Path) -> None:
    foreign = ROLES[role].foreign
    code = "from importlib.util import find_spec\nprint([m for m in sys.argv[1:] if find_spec(m)])"
    done = python(installed, code, *foreign)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    wanted = {
        path.relative_to(ROOT / domain).as_posix()
        for domain in ROLES[role].domains
        for path in (ROOT / domain / "partbook").rglob("*.py")
    }
    assert {path.relative_to(installed).as_posix() for path in installed.rglob("*.py")} == wanted


def test_its_own_commands_run_there(role: str, installed: Path) -> None:
    code = (
        "from partbook.cli import main\n"
        "for words in sys.argv[1:]:\n"
        "    sys.argv = ['partbook', *words.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, (words, end.code)\n"
    )
    done = python(installed, code, "--help", f"{role} --help", f"{role} start --help", "keys --help", "doctor --help")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_role_wheel_is_the_same_twice_and_says_whose_it_is(role: str, tmp_path: Path) -> None:
    first, second = (build(project_of(role), tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert first.name == f"partbook-{VERSION}+{role}-py3-none-any.whl"
    with zipfile.ZipFile(first) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        extras = re.findall(r"^Provides-Extra: (.+)$", archive.read(metadata).decode(), re.MULTILINE)
        assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in archive.namelist() if "/licenses/" in name}
    assert extras == [ROLES[role].extra]


def test_a_build_copies_only_what_the_role_may_hold(role: str, stages: list[Stage]) -> None:
    first, final = stages
    sources = [word for step in first.all("COPY") for word in step.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    assert set(sources) & {"common", "client", "server", "simulation"} == set(ROLES[role].domains)
    assert final.all("COPY") == ["--from=build /opt/partbook /opt/partbook"]
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".dockerignore").read_text().splitlines())
    for source in sources:
        assert not ignored.match_file(source if (ROOT / source).is_file() else f"{source}/partbook/cli.py"), source
    for secret in (".git/config", "keys/Label A.pem", "runs/x/vault.key", "server.toml", "tests/conftest.py"):
        assert ignored.match_file(secret), secret


def test_a_build_checks_that_nothing_foreign_came_along(role: str, stages: list[Stage]) -> None:
    runs = "\n".join(stages[0].all("RUN"))
    for module in ROLES[role].foreign:
        assert re.search(rf"{module}\b", runs)
    assert "assert not held" in runs
    assert f"deploy.role_wheel {role} " in runs
    assert f'--constraint constraints.txt "$(echo /wheels/*.whl)[{ROLES[role].extra}]"' in runs


def test_the_check_in_the_build_refuses_an_image_that_holds_more(
    role: str, stages: list[Stage], installed: Path
) -> None:
    (check,) = [step for step in stages[0].all("RUN") if "assert not held" in step]
    code = shlex.split(check)[-1]
    assert python(installed, code).returncode == 0
    here = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert here.returncode != 0, "the whole project was taken for one role's"


def test_images_run_as_nobody_in_particular_with_no_build_tools(role: str, stages: list[Stage]) -> None:
    first, final = stages
    assert (first.base, first.name, final.base) == ("${BASE}", "build", "${BASE}")
    assert "ARG BASE=python:3.11-slim\n" in (DEPLOY / "docker" / f"{role}.Dockerfile").read_text()
    assert final.one("USER") == "10001:10001"
    runs = " ".join(final.all("RUN"))
    assert "useradd --uid 10001 --gid 10001" in runs
    assert "groupadd --gid 10001" in runs
    assert "pip uninstall --yes pip setuptools wheel" in runs
    assert not re.search(r"apt|gcc|build-essential|pip install", runs)
    assert "--without-pip /opt/partbook" in " ".join(first.all("RUN"))


def test_images_start_and_are_asked_by_commands_that_exist(role: str, stages: list[Stage]) -> None:
    final = stages[-1]
    assert final.words("ENTRYPOINT") == ["partbook"]
    assert final.words("CMD")[:2] == [role, "start"]
    parse(final.words("CMD"))
    asked = final.words("HEALTHCHECK")
    assert asked[0] == "partbook"
    parse(asked[1:])
    # What is asked about is what is started.
    assert asked[2] == final.words("CMD")[-1]
    assert final.one("STOPSIGNAL") == "SIGTERM"


def test_images_say_what_they_are(stages: list[Stage]) -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', stages[-1].one("LABEL")))
    assert labels["version"] == VERSION
    assert labels["licenses"] == "Apache-2.0"
    assert labels["title"]
    assert labels["description"]


def test_whatever_an_image_writes_to_exists_and_is_its_own(stages: list[Stage]) -> None:
    final = stages[-1]
    environment = dict(word.split("=", 1) for word in final.one("ENV").split())
    assert final.words("VOLUME") == [STATE]
    assert environment["HOME"] == final.one("WORKDIR") == STATE
    assert f"install -d -o 10001 -g 10001 -m 0700 {STATE} /etc/partbook /etc/partbook/keys" in " ".join(
        final.all("RUN")
    )
    # Numba refuses to import librosa's functions where it has no place for its cache.
    assert Path(environment["NUMBA_CACHE_DIR"]).parent == Path("/tmp")  # noqa: S108
    assert environment["PATH"].startswith("/opt/partbook/bin:")
    assert {name: environment[name] for name in environment if name.startswith("FLWR_")} == {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def test_only_the_coordinator_offers_a_port(role: str, stages: list[Stage]) -> None:
    assert stages[-1].all("EXPOSE") == (["9443"] if role == "coordinator" else [])
