"""The one wheel: what is in it, and what each extra brings."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # the wheel is built

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_it_holds_all_four_domains_their_data_and_the_compiled_protocol(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {
        "partbook/cli.py",
        "partbook/vault/basic_pitch/nmp.onnx",
        "partbook/vault/basic_pitch/LICENSE",
        "partbook/vault/basic_pitch/NOTICE",
        "partbook/evaluation/musicnn/mtt.safetensors",
        "partbook/evaluation/musicnn/LICENSE",
        "partbook/model/base/model.safetensors",
        "partbook/model/base/tokenizer.json",
        "partbook/evaluation/listening/assets/page.html",
        "partbook/evaluation/listening/assets/page.js",
        "partbook/coordinator/rounds.py",
        "partbook/generator/v1/generator_pb2.py",
        "partbook/generator/v1/generator_pb2_grpc.py",
        "partbook/simulation/demo.py",
    } <= names
    assert "partbook/__init__.py" not in names


def test_it_carries_licence_and_notice(wheel: zipfile.ZipFile) -> None:
    licences = {Path(name).name for name in wheel.namelist() if "dist-info/licenses/" in name}
    assert {"LICENSE", "NOTICE"} <= licences


def test_a_node_does_not_ask_for_the_servers_packages(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    lines = wheel.read(metadata).decode().splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    node = {r.split(";")[0].strip() for r in required if "extra ==" not in r or "extra == 'node'" in r}
    assert any(r.startswith("onnxruntime") for r in node)
    assert not any(r.startswith(("grpcio", "music21", "opacus", "protobuf")) for r in node)
