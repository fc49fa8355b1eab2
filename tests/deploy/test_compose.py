"""The compose file: a whole federation whose parties reach the coordinator's front and nothing else."""

import re
from typing import Any

import pytest
import yaml
from commands import DEPLOY, ROOT, as_command, parse
from dockerfiles import read

from partbook.coordinator.settings import ServerConfig
from partbook.custodian.settings import CustodianSettings
from partbook.node.settings import NodeSettings

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LABELS = ("label-a", "label-b", "label-c")


def test_a_coordinator_three_labels_a_custodian_and_the_rounds() -> None:
    assert set(SERVICES) == {"coordinator", "rounds", *LABELS, "custodian"}
    assert SERVICES["rounds"]["profiles"] == ["rounds"], "rounds begin when somebody says so"


@pytest.mark.parametrize("name", SERVICES)
def test_services_run_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "10001:10001"
    assert service["init"] is True
    assert service["restart"] in ("unless-stopped", "no")
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]  # noqa: S108
    assert {"mem_limit", "cpus", "pids_limit", "stop_grace_period"} <= set(service)
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "environment", "ports"} & set(service)
    assert "latest" not in service["image"]
    assert "healthcheck" in service


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_is_declared(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("networks", ())) <= set(COMPOSE["networks"])
    assert {v.partition(":")[0] for v in service["volumes"]} <= set(COMPOSE["volumes"])
    assert {c["source"] for c in service["configs"]} <= set(COMPOSE["configs"])
    assert {s["source"] for s in service["secrets"]} <= set(COMPOSE["secrets"])
    if "network_mode" in service:
        assert service["network_mode"].removeprefix("service:") in SERVICES
    if "build" in service:
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).exists()


def test_nothing_is_declared_that_nobody_uses() -> None:
    for kind in ("configs", "secrets"):
        assert {item["source"] for service in SERVICES.values() for item in service[kind]} == set(COMPOSE[kind])
    assert {v.partition(":")[0] for s in SERVICES.values() for v in s["volumes"]} == set(COMPOSE["volumes"])
    assert {n for s in SERVICES.values() for n in s.get("networks", ())} == set(COMPOSE["networks"])


def test_a_party_shares_a_network_with_the_coordinator_alone() -> None:
    assert all(network == {"internal": True} for network in COMPOSE["networks"].values())
    for network in COMPOSE["networks"]:
        there = {name for name, service in SERVICES.items() if network in service.get("networks", ())}
        assert len(there) == 2
        assert "coordinator" in there
    for party in (*LABELS, "custodian"):
        assert len(SERVICES[party]["networks"]) == 1


def test_no_two_parties_share_a_secret_or_a_volume() -> None:
    parties = (*LABELS, "custodian", "coordinator")
    secrets = [s["source"] for party in parties for s in SERVICES[party]["secrets"]]
    assert len(set(secrets)) == len(secrets)
    files = [secret["file"] for secret in COMPOSE["secrets"].values()]
    assert len(set(files)) == len(files)
    volumes = [SERVICES[party]["volumes"][0] for party in parties]
    assert len(set(volumes)) == len(volumes)


def test_secrets_come_from_files_outside_of_the_repository() -> None:
    for secret in COMPOSE["secrets"].values():
        assert set(secret) == {"file"}
        assert secret["file"].startswith("${PARTBOOK_HOME:-./federation}/")
        assert "/keys/" in secret["file"]


@pytest.mark.parametrize("name", SERVICES)
def test_commands_are_the_images_own_or_exist(name: str) -> None:
    service = SERVICES[name]
    words = as_command(service["command"])
    assert words is not None
    parse(words)
    if name != "rounds":
        (dockerfile,) = [
            DEPLOY / "docker" / f"{role}.Dockerfile"
            for role in ("node", "custodian", "coordinator")
            if service["image"].startswith(f"partbook/{role}:")
        ]
        image = read(dockerfile)[-1]
        assert words[: len(image.words("CMD"))] == image.words("CMD")
        asked = service["healthcheck"]["test"]
        assert ["CMD", *asked[1:]] == ["CMD", *image.words("HEALTHCHECK")]


@pytest.mark.parametrize("name", [*LABELS, "custodian"])
def test_every_file_that_the_shipped_configuration_names_is_mounted(name: str) -> None:
    service = SERVICES[name]
    kind = "custodian" if name == "custodian" else "node"
    given = {item["target"] for item in service["configs"] + service["secrets"]}
    assert f"/etc/partbook/{kind}.toml" in given
    read_settings = CustodianSettings.read if kind == "custodian" else NodeSettings.read
    settings = read_settings(DEPLOY / "config" / f"{kind}.toml")
    beside = {str(v).replace(str(DEPLOY / "config"), "/etc/partbook") for _, v in settings if v and "/" in str(v)}
    reads = {path for path in beside if path.startswith("/etc/partbook/")}
    writes = {path for path in beside if path.startswith("/var/lib/partbook/")}
    assert reads | writes == {path for path in beside if path.startswith("/")}
    assert reads == given - {f"/etc/partbook/{kind}.toml"}
    assert writes
    assert service["volumes"][0].endswith(":/var/lib/partbook")


def test_nodes_call_the_coordinator_by_its_service_and_the_fronts_port() -> None:
    port = ServerConfig().port
    for settings in (
        NodeSettings.read(DEPLOY / "config" / "node.toml"),
        CustodianSettings.read(DEPLOY / "config" / "custodian.toml"),
    ):
        assert settings.coordinator == f"coordinator:{port}"
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r'"(\d+):(\d+)"', text)) - {("10001", "10001")} == {(str(port), str(port))}
