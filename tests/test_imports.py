"""The house's walls: which package may import which, and what a command's start-up loads."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # processes that import everything

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "common": {"common"},
    "client": {"common", "client"},
    "server": {"common", "server"},
    "simulation": {"common", "client", "server", "simulation"},
}


def package_domains() -> dict[str, str]:
    """Trust domain of every module and package directly under `partbook`."""
    return {
        entry.stem: domain
        for domain in MAY_IMPORT
        for entry in (ROOT / domain / "partbook").iterdir()
        if entry.suffix == ".py" or (entry.is_dir() and entry.name != "__pycache__")
    }


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("partbook.") and "." in name}


@pytest.mark.parametrize("domain", MAY_IMPORT)
def test_imports_run_one_way(domain: str) -> None:
    domains = package_domains()
    wrong = [
        f"{path.relative_to(ROOT)} imports partbook.{name} ({domains[name]})"
        for path in sorted((ROOT / domain).rglob("*.py"))
        for name in sorted(imported_packages(path))
        if name in domains and domains[name] not in MAY_IMPORT[domain]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_namespace_has_no_init_files() -> None:
    assert not [d for d in MAY_IMPORT if (ROOT / d / "partbook" / "__init__.py").exists()]


def test_every_package_says_what_is_inside() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for domain in MAY_IMPORT
        for path in (ROOT / domain).rglob("*.py")
        if "_pb2" not in path.name and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def modules_after(*arguments: str) -> set[str]:
    """Modules loaded once `partbook ARGUMENTS` has run."""
    code = (
        "import sys\nfrom partbook.cli import main\nsys.argv = ['partbook', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "print('MODULES', *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES ")[2].split())


HEAVY = {
    "torch",
    "librosa",
    "flwr",
    "onnxruntime",
    "matplotlib",
    "music21",
    "symusic",
    "tokenizers",
    "scipy",
    "sklearn",
    "grpc",
}
SERVER_ONLY = {"partbook.coordinator", "partbook.generator", "grpc", "grpc_reflection", "grpc_health"}
CLIENT_ONLY = {"partbook.node", "partbook.vault", "partbook.training", "onnxruntime"}


@pytest.mark.parametrize(
    ("arguments", "foreign"),
    [
        (("--help",), SERVER_ONLY | CLIENT_ONLY | {"partbook.simulation"}),
        (("node", "--help"), SERVER_ONLY | {"partbook.simulation"}),
        (("node", "ingest", "--help"), SERVER_ONLY | {"partbook.simulation"}),
        (("serve", "--help"), CLIENT_ONLY | {"partbook.simulation"}),
        (("generate", "--help"), CLIENT_ONLY | {"partbook.simulation"}),
        (("release", "--help"), CLIENT_ONLY | {"partbook.simulation"}),
        (("keys", "--help"), SERVER_ONLY | CLIENT_ONLY | {"partbook.simulation"}),
        (("roster", "--help"), SERVER_ONLY | CLIENT_ONLY | {"partbook.simulation"}),
        (("listen", "--help"), SERVER_ONLY | CLIENT_ONLY | {"partbook.simulation"}),
        (("listen", "make", "--help"), SERVER_ONLY | CLIENT_ONLY | {"partbook.simulation"}),
        (("demo", "--help"), set()),
        (("simulate", "--help"), set()),
        (("evaluate", "--help"), {"partbook.evaluation", *SERVER_ONLY, *CLIENT_ONLY}),
        (("baseline", "--help"), {"partbook.evaluation", *SERVER_ONLY, *CLIENT_ONLY}),
        (("corpus", "--help"), {"partbook.evaluation", *SERVER_ONLY, *CLIENT_ONLY}),
        (("base", "train", "--help"), {"partbook.evaluation", *SERVER_ONLY, *CLIENT_ONLY}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_help_loads_only_its_own_role(arguments: tuple[str, ...], foreign: set[str]) -> None:
    loaded = modules_after(*arguments)
    assert not loaded & foreign
    assert not loaded & HEAVY, "start-up would take seconds"


def test_constraints_pin_every_requirement() -> None:
    pins = {
        line.split("==")[0].strip().lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [r for group in project["optional-dependencies"].values() for r in group]
    names = {r.split("[")[0].split(";")[0].strip() for r in wanted}
    bare = {n.split("=")[0].split(">")[0].split("<")[0].strip().lower().replace("_", "-") for n in names}
    assert not bare - pins - {"partbook"}
