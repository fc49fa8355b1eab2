import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio import Trio

from partbook.errors import (
    CohortRefused,
    ConfigError,
    NoiseRefused,
    OpenSumsRefused,
    OutsideHours,
    PartbookError,
    RoundsRefused,
    SamplingRefused,
    UnknownCoordinator,
)
from partbook.identity.keys import IdentityKey
from partbook.node.policy import POLICY_FILE, Policy
from partbook.plan.training import DistributedDp, LocalDp, PlainTraining

NOON = datetime(2026, 11, 22, 12, 0)
DISTRIBUTED = DistributedDp(noise_multiplier=1.0, sampling=0.1, batch=10)
LOCAL = LocalDp(noise_multiplier=1.0, sampling=0.1, batch=10)

policies = st.builds(
    Policy,
    coordinator=st.sampled_from(["", "ab" * 32]),
    epsilon_recording=st.floats(1e-3, 1e6) | st.just(float("inf")),
    epsilon_federation=st.floats(1e-3, 1e6) | st.just(float("inf")),
    delta=st.floats(1e-12, 0.1),
    sampling=st.floats(1e-6, 1),
    noise=st.lists(st.sampled_from(["distributed", "local", "none"]), unique=True).map(tuple),
    modes=st.lists(st.sampled_from(["sealed", "masked"]), unique=True).map(tuple),
    rounds=st.integers(1, 10**6),
    minimum_cohort=st.integers(3, 1000),
    colluders=st.integers(0, 100),
    hours=st.sampled_from(["", "22:00-06:00", "08:30-17:15"]),
    gpu_share=st.floats(0, 1),
    releases=st.sampled_from(["automatic", "never"]),
)


@pytest.fixture(scope="module")
def check(trio: Trio):
    """Holds a plan, with some fields changed, against a policy with some keys changed."""

    def run(keys: dict, roster=None, rounds_so_far: int = 0, now: datetime = NOON, **fields: object) -> None:
        plan = trio.plan(**({"mode": "sealed", "training": DISTRIBUTED, "parameters": 1000} | fields))
        Policy(**keys).check(plan, roster or trio.roster, rounds_so_far=rounds_so_far, now=now)

    return run


@given(policies)
def test_what_is_written_is_what_is_read(policy: Policy) -> None:
    assert Policy.model_validate(tomllib.loads(policy.text)) == policy


def test_the_file_explains_every_key_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / POLICY_FILE
    Policy.default().write(path)
    assert Policy.read(path) == Policy.default() == Policy.in_force(tmp_path)
    lines = path.read_text().splitlines()
    for key in Policy.model_fields:
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")]
        assert lines[at - 1].startswith("# ")
    with pytest.raises(ConfigError, match="not overwritten"):
        Policy.default().write(path)


def test_keys_left_out_have_careful_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("epsilon_recording = 3\n")
    policy = Policy.in_force(tmp_path, path)
    assert (policy.epsilon_federation, policy.delta, policy.noise) == (3.0, 1e-6, ("distributed", "local"))
    assert Policy.in_force(tmp_path) == Policy.default()
    path.write_text("epsilon_recording = inf\nepsilon_federation = 5\n")
    assert Policy.read(path).epsilon_recording == float("inf")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("epsilon_recording = 0", "epsilon_recording"),
        ("epsilon_federation = nan", "epsilon_federation"),
        ("delta = 1", "delta"),
        ("sampling = 0", "sampling"),
        ('noise = ["gaussian"]', "noise.0"),
        ('modes = "masked"', "modes"),
        ("rounds = 0", "rounds"),
        ("minimum_cohort = 2", "minimum_cohort"),
        ("colluders = -1", "colluders"),
        ('hours = "22-06"', "hours"),
        ('hours = "22:00-22:00"', "hours"),
        ('hours = "24:00-06:00"', "hours"),
        ("gpu_share = 1.5", "gpu_share"),
        ('releases = "sometimes"', "releases"),
        ('coordinator = "ab12"', "coordinator"),
        ("epsilon = 8", "epsilon"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, line: str, key: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(line)
    with pytest.raises(ConfigError, match=f"policy.toml: {key}: "):
        Policy.read(path)


@pytest.mark.parametrize("content", [b"delta =", b"\xff\xfe", None])
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "policy.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"policy\.toml"):
        Policy.read(path)


def test_the_default_takes_part_in_sealed_rounds_with_noise(check) -> None:
    check({})
    check({}, training=LOCAL)


@pytest.mark.parametrize(
    ("refusal", "key", "allowing", "asked"),
    [
        (NoiseRefused, "noise", {"noise": ["none"]}, {"training": PlainTraining()}),
        (NoiseRefused, "noise", {"noise": ["local"]}, {"training": LOCAL, "policy": {"noise": ["distributed"]}}),
        (NoiseRefused, "colluders", {"colluders": 0}, {"policy": {"colluders": 1}}),
        (SamplingRefused, "sampling", {"sampling": 0.1}, {"policy": {"sampling": 0.05}}),
        (SamplingRefused, "sampling", {"sampling": 0.1}, {"training": LOCAL, "policy": {"sampling": 0.05}}),
        (CohortRefused, "minimum_cohort", {"minimum_cohort": 3}, {"policy": {"minimum_cohort": 4}}),
        (OpenSumsRefused, "modes", {"modes": ["sealed", "masked"]}, {"mode": "masked"}),
        (RoundsRefused, "rounds", {"rounds": 11}, {"policy": {"rounds": 10}, "rounds_so_far": 10}),
        (OutsideHours, "hours", {"hours": "11:00-13:00"}, {"policy": {"hours": "22:00-06:00"}}),
    ],
)
def test_what_is_not_allowed_is_refused_by_name_with_the_key_to_change(
    check, refusal: type[PartbookError], key: str, allowing: dict, asked: dict
) -> None:
    fields = {name: value for name, value in asked.items() if name != "policy"}
    with pytest.raises(refusal, match=f"`{key}` in policy.toml"):
        check(asked.get("policy", {}), **fields)
    check(allowing, **fields)


def test_colluders_do_not_matter_to_noise_of_ones_own(check) -> None:
    check({"colluders": 2}, training=LOCAL)
    check({"colluders": 1}, training=DISTRIBUTED.model_copy(update={"colluders": 1}))


def test_without_a_custodian_masked_rounds_are_all_there_is(check, trio: Trio, tmp_path: Path) -> None:
    from partbook.identity.roster import Roster

    alone = Roster.read(trio.rewritten(tmp_path / "roster.toml", custodian=None))
    check({}, roster=alone, mode="masked")


def test_only_the_named_coordinator_may_ask_however_its_key_is_written(check, trio: Trio) -> None:
    key = trio.roster.coordinator
    pem = key.pem.decode()
    plain = key.fingerprint.replace(" ", "")
    for spelling in (key.fingerprint, plain, plain.upper(), pem, f"\n{pem}\n"):
        check({"coordinator": spelling})
    other = IdentityKey.generate().public
    with pytest.raises(UnknownCoordinator, match=r"`coordinator` in policy.toml") as refusal:
        check({"coordinator": other.fingerprint})
    assert key.fingerprint in str(refusal.value)
    assert other.fingerprint in str(refusal.value)


@pytest.mark.parametrize(
    ("hours", "at", "open_"),
    [
        ("22:00-06:00", "21:59", False),
        ("22:00-06:00", "22:00", True),
        ("22:00-06:00", "00:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("09:30-17:00", "09:29", False),
        ("09:30-17:00", "16:59", True),
        ("09:30-17:00", "17:00", False),
        ("", "03:00", True),
    ],
)
def test_hours_may_go_over_midnight(check, hours: str, at: str, open_: bool) -> None:
    now = datetime.fromisoformat(f"2026-11-22T{at}")
    if open_:
        check({"hours": hours}, now=now)
        check({"hours": hours}, now=now.astimezone(UTC))  # the same moment
    else:
        with pytest.raises(OutsideHours, match=f"came at {at}"):
            check({"hours": hours}, now=now.astimezone(UTC))
