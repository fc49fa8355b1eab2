import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import ConfigError, CorruptMessage
from partbook.plan.federation import FederationConfig
from partbook.plan.rounds import LocalTraining, Locks, RoundPlan, default_threshold

FIELDS = {
    "federation": "quartet",
    "round": 3,
    "base_hash": "a" * 64,
    "model_hash": "b" * 64,
    "cohort": ("Alto", "Bass", "Tenor"),
    "threshold": 3,
    "training": LocalTraining(),
    "locks": Locks(),
}


def test_a_plan_survives_its_canonical_form_and_its_hash_is_known() -> None:
    plan = RoundPlan(**FIELDS)
    assert RoundPlan.decode(plan.encode()) == plan
    assert plan.hash() == RoundPlan.decode(plan.encode()).hash()
    assert plan.encode().startswith(b'{"base_hash":"aaaa')


@pytest.mark.parametrize(
    "change",
    [
        {"round": 4}, {"federation": "trio"}, {"model_hash": "c" * 64}, {"threshold": 2},
        {"locks": Locks(masks=True)}, {"training": LocalTraining(clip=1.0)},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_changes_in_a_plan_changes_its_hash(change: dict) -> None:
    assert RoundPlan(**{**FIELDS, **change}).hash() != RoundPlan(**FIELDS).hash()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cohort": ("Alto", "Bass")}, "at least 3"),
        ({"cohort": ("Bass", "Alto", "Tenor")}, "sorted"),
        ({"cohort": ("Alto", "Alto", "Bass")}, "once"),
        ({"threshold": 1}, "half"),
        ({"threshold": 4}, "half"),
        ({"round": 0}, "round"),
        ({"base_hash": "xyz"}, "base_hash"),
        ({"protocol": "partbook/v2"}, "protocol"),
        ({"loss_please": True}, "loss_please"),
    ],
    ids=str,
)
def test_broken_plans_are_refused_with_the_place(change: dict, reason: str) -> None:
    fields = json.loads(RoundPlan(**FIELDS).encode()) | json.loads(json.dumps(change))
    data = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(CorruptMessage, match=reason):
        RoundPlan.decode(data)


def test_a_plan_in_another_spelling_is_refused() -> None:
    spaced = json.dumps(json.loads(RoundPlan(**FIELDS).encode()), indent=1).encode()
    with pytest.raises(CorruptMessage, match="canonical"):
        RoundPlan.decode(spaced)


@given(data=st.binary(max_size=200))
def test_noise_is_not_a_plan(data: bytes) -> None:
    with pytest.raises(CorruptMessage):
        RoundPlan.decode(data)


def test_the_default_threshold_outvotes_a_third() -> None:
    assert [default_threshold(n) for n in (3, 4, 5, 6, 10)] == [3, 3, 4, 5, 7]


def test_a_configuration_survives_its_file(tmp_path) -> None:
    config = FederationConfig(name="quartet", members=("C", "A", "B"), rounds=5, state=tmp_path / "state")
    config.write(tmp_path / "federation.toml")
    assert FederationConfig.read(tmp_path / "federation.toml") == config
    assert config.cohort == ("A", "B", "C")
    assert config.quorum == 3


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("name = 'q'\nmembers = ['A', 'B', 'C']\nstate = 's'\n", "rounds"),
        ("name = 'q'\nmembers = ['A', 'A', 'C']\nstate = 's'\nrounds = 3\n", "members"),
        (
            "name = 'q'\nmembers = ['A', 'B', 'C']\nstate = 's'\nrounds = 3\n[training]\nclip = -1\n",
            "training.clip",
        ),
        ("name = 'q'\nmembers = ['A', 'B', 'C']\nstate = 's'\nrounds = 3\nhurry = true\n", "hurry"),
        ("name = ", "TOML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, text: str, key: str) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=key):
        FederationConfig.read(path)
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        FederationConfig.read(tmp_path / "absent.toml")
