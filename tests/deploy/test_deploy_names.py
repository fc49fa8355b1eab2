"""Whatever a file under deploy/ names, or the page on it, is there: commands, files, ports, make targets, accounts."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from commands import DEPLOY, PAGE, ROOT, as_command, documents, files, lists_in, named_in, parse

from partbook.coordinator.settings import ServerConfig
from partbook.custodian.settings import CustodianSettings
from partbook.node.settings import NodeSettings

TEXTS = [path for path in files() if path.suffix != ".json"] + [PAGE, ROOT / ".dockerignore"]
IDS = {path: path.relative_to(ROOT).as_posix() for path in TEXTS}


@pytest.mark.parametrize("path", TEXTS, ids=IDS.get)
def test_every_command_line_exists_with_its_options(path: Path) -> None:
    for words in named_in(path.read_text()):
        parse(words, mentioned=True)


def test_command_lines_are_found_where_they_stand() -> None:
    text = "\n".join(path.read_text() for path in TEXTS)
    found = {" ".join(words[:2]) for words in named_in(text)}
    assert {"node start", "custodian start", "coordinator start", "coordinator run", "node ingest"} <= found
    with pytest.raises(Exception, match="no-such"):
        parse(["node", "start", "--no-such", "option"])
    with pytest.raises(AssertionError, match="fly"):
        parse(["node", "fly"])


@pytest.mark.parametrize("path", [p for p in files(".yaml", ".yml", ".json") if "templates" not in p.parts], ids=str)
def test_yaml_and_json_can_be_read_and_their_commands_exist(path: Path) -> None:
    for document in documents(path):
        assert document
        for words in lists_in(document) if path.suffix != ".json" else ():
            if (command := as_command(words)) is not None:
                parse(command)


@pytest.mark.parametrize("path", files(".toml"), ids=str)
def test_toml_can_be_read(path: Path) -> None:
    assert tomllib.loads(path.read_text())


def test_the_shipped_configurations_are_valid_and_call_for_every_needed_key() -> None:
    node = NodeSettings.read(DEPLOY / "config" / "node.toml")
    assert node.receiving is not None
    assert node.seal_key is not None
    CustodianSettings.read(DEPLOY / "config" / "custodian.toml")


@pytest.mark.parametrize("path", TEXTS, ids=IDS.get)
def test_files_of_the_repository_that_are_named_are_there(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r"(?<![\w/.$}])((?:deploy|docs|tests|common|client|server)/[\w./-]*\w/?)", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([^)#]+)\)", text) if path.suffix == ".md" else ():
        assert (path.parent / link).exists(), link
    for module in re.findall(r"python -m (deploy\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


@pytest.mark.parametrize("path", TEXTS, ids=IDS.get)
def test_make_targets_that_are_named_are_in_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", path.read_text(), re.MULTILINE)) <= targets


def test_ports_are_those_of_the_coordinators_configuration() -> None:
    server = ServerConfig()
    known = {server.port, server.superlink_port, server.metrics_port}
    for path in TEXTS:
        for port in map(int, re.findall(r"(?<![\d.:])(9\d{3})(?!\d)", path.read_text())):
            assert port in known, f"{path}: {port}"
    values = yaml.safe_load((DEPLOY / "helm" / "partbook" / "values.yaml").read_text())
    assert values["coordinator"]["port"] == values["node"]["coordinator"]["port"] == server.port


def test_one_account_everywhere() -> None:
    text = "\n".join(path.read_text() for path in files() if "docker" in path.parts or path.name == "compose.yaml")
    assert set(re.findall(r"\b(1\d{4})\b", text)) == {"10001"}


def test_no_file_names_a_registry_or_an_image_that_changes_under_its_name() -> None:
    registries = r"\b[\w-]+\.(?:io|org|com|dev)/[\w./-]+:|ghcr|quay|docker\.io|index-url [^$]|:latest\b|gcr\."
    for path in TEXTS:
        found = re.findall(
            registries,
            re.sub(r"https?://\S+|(?:kubernetes|helm\.sh|opencontainers|nvidia\.com)\S*", "", path.read_text()),
        )
        assert not found, f"{path}: {found}"


def test_no_file_holds_a_secret() -> None:
    for path in TEXTS:
        assert not re.search(r"PRIVATE KEY-----\n|PASSPHRASE=[\w]", path.read_text()), path


def test_schemas_are_what_they_say() -> None:
    schema = json.loads((DEPLOY / "helm" / "partbook" / "values.schema.json").read_text())
    values = yaml.safe_load((DEPLOY / "helm" / "partbook" / "values.yaml").read_text())
    assert set(values) | {"global"} == set(schema["properties"])
