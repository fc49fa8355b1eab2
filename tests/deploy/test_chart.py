"""The Helm chart, rendered without Helm and held against its schema and against what Kubernetes wants of an object."""

import copy
import re
import tomllib
from typing import Any

import jsonschema
import pytest
from charts import Chart
from commands import DEPLOY, ROOT, as_command, lists_in, named_in, parse

FOLDER = DEPLOY / "helm" / "partbook"
CHART = Chart(FOLDER)
PARTIES = ("coordinator", "node", "custodian")
KINDS = {"StatefulSet": "apps/v1", "Service": "v1", "NetworkPolicy": "networking.k8s.io/v1"}


def enabled(*parties: str, **more: dict[str, Any]) -> dict[str, Any]:
    values = copy.deepcopy(CHART.values)
    for party in parties:
        values[party]["enabled"] = True
    for party, changes in more.items():
        values[party].update(changes)
    return values


FEDERATION = enabled(*PARTIES)
FULL = enabled(
    *PARTIES,
    coordinator={"ingressFrom": ["192.0.2.0/24"], "service": {"type": "LoadBalancer", "annotations": {"a": "b"}}},
    node={
        "recordings": "masters",
        "nodeSelector": {"gpu": "yes"},
        "coordinator": {"cidr": "192.0.2.10/32", "port": 9443},
        "storage": {"size": "1Ti", "className": "fast"},
        "image": {**CHART.values["node"]["image"], "digest": "sha256:" + "0" * 64},
    },
)


def of_kind(values: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {o["metadata"]["name"].removeprefix("ours-"): o for o in CHART.objects(values) if o["kind"] == kind}


@pytest.mark.parametrize("values", [CHART.values, FEDERATION, FULL], ids=["as shipped", "a federation", "every option"])
def test_the_values_satisfy_the_schema(values: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(CHART.schema)
    jsonschema.validate(values, CHART.schema, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    ("party", "changes"),
    [
        ("node", {"image": {**CHART.values["node"]["image"], "tag": "latest"}}),
        ("node", {"identity": "-----BEGIN PRIVATE KEY-----"}),
        ("node", {"replicas": 2}),
        ("node", {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}),
        ("coordinator", {"port": 0}),
        ("coordinator", {"ingressFrom": ["anywhere"]}),
        ("custodian", {"secret": ""}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_schema_refuses_what_would_be_unsafe(party: str, changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(enabled(**{party: changes}), CHART.schema, cls=jsonschema.Draft7Validator)


def test_nothing_is_installed_that_was_not_enabled() -> None:
    assert CHART.objects(CHART.values) == []
    assert set(of_kind(enabled("node"), "StatefulSet")) == {"node"}


@pytest.mark.parametrize("values", [FEDERATION, FULL], ids=["a federation", "every option"])
def test_every_object_is_one_that_kubernetes_knows_under_a_name_of_its_own(values: dict[str, Any]) -> None:
    objects = CHART.objects(values)
    assert len({(o["kind"], o["metadata"]["name"]) for o in objects}) == len(objects) == 3 * len(PARTIES)
    for found in objects:
        assert found["apiVersion"] == KINDS[found["kind"]]
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?", found["metadata"]["name"])
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/component"] in PARTIES
        assert labels["app.kubernetes.io/version"] == CHART.about["appVersion"]


def selects(selector: dict[str, str], pod: dict[str, Any]) -> bool:
    return bool(selector) and selector.items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("party", PARTIES)
def test_selectors_find_their_own_pod_and_no_other(party: str) -> None:
    sets = of_kind(FEDERATION, "StatefulSet")
    pods = {name: found["spec"]["template"] for name, found in sets.items()}
    for selector in (
        sets[party]["spec"]["selector"]["matchLabels"],
        of_kind(FEDERATION, "Service")[party]["spec"]["selector"],
        of_kind(FEDERATION, "NetworkPolicy")[party]["spec"]["podSelector"]["matchLabels"],
    ):
        assert [name for name, pod in pods.items() if selects(selector, pod)] == [party]
    assert sets[party]["spec"]["serviceName"] in {s["metadata"]["name"] for s in CHART.objects(FEDERATION)}
    assert sets[party]["spec"]["replicas"] == 1


@pytest.mark.parametrize("values", [FEDERATION, FULL], ids=["a federation", "every option"])
@pytest.mark.parametrize("party", PARTIES)
def test_volumes_that_are_mounted_exist_and_those_that_exist_are_mounted(party: str, values: dict[str, Any]) -> None:
    spec = of_kind(values, "StatefulSet")[party]["spec"]
    pod = spec["template"]["spec"]
    there = {v["name"] for v in pod["volumes"]} | {c["metadata"]["name"] for c in spec["volumeClaimTemplates"]}
    mounted = {m["name"] for c in pod["containers"] + pod["initContainers"] for m in c["volumeMounts"]}
    assert mounted == there
    for container in pod["containers"] + pod["initContainers"]:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("party", PARTIES)
def test_pods_run_hardened(party: str) -> None:
    pod = of_kind(FULL, "StatefulSet")[party]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not any("hostPath" in volume for volume in pod["volumes"])
    for container in pod["containers"] + pod["initContainers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        assert re.search(r":[0-9.]+(@sha256:[0-9a-f]{64})?$", container["image"])
    assert any("readinessProbe" in container for container in pod["containers"])


def test_keys_come_from_a_secret_and_lie_in_memory_for_their_owner_alone() -> None:
    for party, found in of_kind(FEDERATION, "StatefulSet").items():
        pod = found["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["keys"]["secret"] == {"secretName": f"partbook-{party}", "defaultMode": 0o400}
        assert volumes["placed"]["emptyDir"]["medium"] == "Memory"
        (main,) = pod["containers"]
        assert "keys" not in {mount["name"] for mount in main["volumeMounts"]}
        (script,) = pod["initContainers"][0]["args"]
        assert "install -m 0600 /given/keys/* /etc/partbook/keys/" in script
        # Otherwise Kubernetes opens the files of the volume to the group, and Partbook refuses its own keys.
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_only_the_coordinators_front_takes_connections() -> None:
    services, policies = of_kind(FULL, "Service"), of_kind(FULL, "NetworkPolicy")
    (port,) = services["coordinator"]["spec"]["ports"]
    (container,) = of_kind(FULL, "StatefulSet")["coordinator"]["spec"]["template"]["spec"]["containers"]
    assert [p["containerPort"] for p in container["ports"]] == [port["port"]] == [9443]
    assert port["targetPort"] == container["ports"][0]["name"] == "front"
    (rule,) = policies["coordinator"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": "front", "protocol": "TCP"}]
    assert {"ipBlock": {"cidr": "192.0.2.0/24"}} in rule["from"]
    assert policies["coordinator"]["spec"]["egress"] == []
    for party in ("node", "custodian"):
        assert services[party]["spec"]["clusterIP"] == "None"
        assert policies[party]["spec"]["ingress"] == []
    assert all(set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"} for p in policies.values())


def test_a_node_reaches_one_host_and_the_names_servers() -> None:
    names, coordinator = of_kind(FULL, "NetworkPolicy")["node"]["spec"]["egress"]
    assert {p["port"] for p in names["ports"]} == {53}
    assert coordinator == {
        "to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}],
        "ports": [{"port": 9443, "protocol": "TCP"}],
    }
    _, near = of_kind(FEDERATION, "NetworkPolicy")["node"]["spec"]["egress"]
    pods = of_kind(FEDERATION, "StatefulSet")
    (target,) = near["to"]
    assert selects(target["podSelector"]["matchLabels"], pods["coordinator"]["spec"]["template"])


def test_its_commands_exist() -> None:
    found = [c for words in lists_in(CHART.objects(FULL)) if (c := as_command(words)) is not None]
    assert {tuple(words[:2]) for words in found} >= {(party, "start") for party in PARTIES}
    for words in found + named_in(CHART.text("NOTES.txt", FULL)):
        parse(words)


def test_its_version_and_account_are_those_of_the_images() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert CHART.about["appVersion"] == version
    for party in PARTIES:
        dockerfile = (DEPLOY / "docker" / f"{party}.Dockerfile").read_text()
        assert CHART.values[party]["image"]["repository"] == f"partbook/{party}"
        assert CHART.values[party]["image"]["tag"] == version
        security = of_kind(FEDERATION, "StatefulSet")[party]["spec"]["template"]["spec"]["securityContext"]
        assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in dockerfile
