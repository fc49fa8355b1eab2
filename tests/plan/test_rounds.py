import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio import MEMBERS, Trio

from partbook.errors import CorruptMessage, ForeignSealKey, ForgedMember
from partbook.plan.rounds import MINIMUM_COHORT, RoundPlan, ServerStep, default_threshold
from partbook.plan.training import DistributedDp, LocalDp, PlainTraining
from partbook.secagg.rings import CHUNK, RESIDUES, WORDS

FIELDS = {
    "federation": "quartet",
    "roster": "d" * 64,
    "round": 3,
    "nonce": "e" * 32,
    "deadline": 2_000_000_000,
    "base_hash": "a" * 64,
    "model_hash": "b" * 64,
    "parameters": 10,
    "cohort": ("Alto", "Bass", "Tenor"),
    "threshold": 3,
    "training": PlainTraining(),
    "mode": "masked",
    "bits": 16,
}
NOISY = {"kind": "distributed", "noise_multiplier": 1.0, "sampling": 0.5, "batch": 9.0}
SEALED = {**FIELDS, "mode": "sealed", "seal_key": "c" * 64}


@pytest.mark.parametrize("fields", [FIELDS, SEALED], ids=["masked", "sealed"])
def test_a_plan_survives_its_canonical_form(fields: dict) -> None:
    plan = RoundPlan(**fields)
    assert RoundPlan.decode(plan.encode()) == plan
    assert plan.encode().startswith(b'{"base_hash":"aaaa')
    assert plan.hash() == hashlib.sha256(b"partbook/v1/plan" + plan.encode()).hexdigest()
    assert plan.context().plan == plan.hash()


@given(
    round=st.integers(1, 2**53 - 1),
    deadline=st.integers(0, 2**53 - 1),
    learning_rate=st.floats(1e-12, 1),
    clip=st.floats(1e-3, 1e6),
    federation=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
)
def test_any_plan_survives_its_canonical_form(learning_rate: float, clip: float, **fields: object) -> None:
    training = PlainTraining(learning_rate=learning_rate, clip=clip)
    plan = RoundPlan(**{**FIELDS, **fields, "training": training})
    assert RoundPlan.decode(plan.encode()) == plan


CHANGES = [
    {"round": 4}, {"federation": "trio"}, {"model_hash": "c" * 64}, {"threshold": 2}, {"nonce": "f" * 32},
    {"roster": "0" * 64}, {"deadline": 1}, {"base_hash": "0" * 64}, {"parameters": 11}, {"bits": 12},
    {"cohort": ("Alto", "Bass", "Cantus")}, {"training": PlainTraining(clip=1.0)}, {"step": ServerStep(momentum=0.1)},
    {"training": DistributedDp(noise_multiplier=1.0, sampling=0.5, batch=9.0)}, {"scope": "norms"},
    {"training": LocalDp(noise_multiplier=1.0, sampling=0.5, batch=3.0)},
    {"mode": "sealed", "seal_key": "c" * 64},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_whatever_changes_in_a_plan_changes_its_hash(change: dict) -> None:
    assert RoundPlan(**{**FIELDS, **change}).hash() != RoundPlan(**FIELDS).hash()


def test_every_field_of_a_plan_is_among_those_changes() -> None:
    assert {name for change in CHANGES for name in change} | {"protocol"} == set(RoundPlan.model_fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cohort": ("Alto", "Bass")}, "at least 3"),
        ({"cohort": ("Bass", "Alto", "Tenor")}, "sorted"),
        ({"cohort": ("Alto", "Alto", "Bass")}, "once"),
        ({"cohort": ("Alto", "Bass", "")}, "cohort"),
        ({"threshold": 1}, "half"),
        ({"threshold": 4}, "half"),
        ({"round": 0}, "round"),
        ({"round": "3"}, "canonical"),
        ({"round": 3.0}, "canonical"),
        ({"deadline": -1}, "deadline"),
        ({"base_hash": "xyz"}, "base_hash"),
        ({"roster": "D" * 64}, "roster"),
        ({"nonce": "e" * 31}, "nonce"),
        ({"parameters": 0}, "parameters"),
        ({"bits": 1}, "bits"),
        ({"bits": 25}, "bits"),
        ({"protocol": "partbook/v2"}, "protocol"),
        ({"mode": "clear"}, "mode"),
        ({"mode": "sealed"}, "custodian's key"),
        ({"seal_key": "c" * 64}, "custodian's key"),
        ({"locks": {"masks": False}}, "locks"),
        ({"loss_please": True}, "loss_please"),
        ({"training": {"kind": "plain", "clip": 0}}, r"training\.plain\.clip"),
        ({"training": {"kind": "plain", "clip": 1e-320}}, "plan"),
        ({"training": {"clip": 1}}, "training"),
        ({"training": {**NOISY, "noise_multiplier": 0}}, "noise_multiplier"),
        ({"training": {**NOISY, "sampling": 1.5}}, "sampling"),
        ({"training": {**NOISY, "sampling": 0}}, "sampling"),
        ({"training": {**NOISY, "colluders": 3}}, "colluders"),
        ({"training": {**NOISY, "noise_multiplier": 900}}, "plan"),  # leaves no steps of the grid for the updates
        ({"scope": "some"}, "scope"),
        ({"step": {"learning_rate": 0}}, "step.learning_rate"),
        ({"step": {"momentum": 1}}, "step.momentum"),
    ],
    ids=str,
)
def test_broken_plans_are_refused_with_the_place(change: dict, reason: str) -> None:
    fields = json.loads(RoundPlan(**FIELDS).encode()) | json.loads(json.dumps(change))
    data = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(CorruptMessage, match=reason):
        RoundPlan.decode(data)


@pytest.mark.parametrize("missing", sorted(set(FIELDS)))
def test_a_plan_without_a_field_is_refused_with_its_name(missing: str) -> None:
    fields = {name: value for name, value in json.loads(RoundPlan(**FIELDS).encode()).items() if name != missing}
    with pytest.raises(CorruptMessage, match=missing):
        RoundPlan.decode(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


def test_a_plan_in_another_spelling_is_refused() -> None:
    whole = RoundPlan(**FIELDS).encode()
    spaced = json.dumps(json.loads(whole), indent=1).encode()
    twice = whole[:-1] + b',"round":3}'
    for other in (spaced, twice, whole + b"\n"):
        with pytest.raises(CorruptMessage):
            RoundPlan.decode(other)


@given(data=st.binary(max_size=200))
def test_noise_is_not_a_plan(data: bytes) -> None:
    with pytest.raises(CorruptMessage):
        RoundPlan.decode(data)


@given(
    st.integers(3, 300).map(lambda n: tuple(f"m{i:03d}" for i in range(n))),
    st.integers(2, 24),
    st.sampled_from(["masked", "sealed"]),
)
def test_a_plan_is_made_only_where_no_sum_can_wrap(cohort: tuple[str, ...], bits: int, mode: str) -> None:
    changed = {"cohort": cohort, "bits": bits, "threshold": len(cohort), "mode": mode}
    largest = len(cohort) * 2 * (2 ** (bits - 1) - 1)
    ring = WORDS if mode == "masked" else RESIDUES
    try:
        plan = RoundPlan(**{**FIELDS, **changed, "seal_key": "" if mode == "masked" else "c" * 64})
    except ValueError:
        assert largest >= ring.modulus or (mode == "sealed" and len(cohort) > 128)
    else:
        assert plan.ring == ring
        assert largest < ring.modulus
        assert plan.chunks >= 1


@given(st.integers(3, 10_000))
def test_the_default_threshold_outvotes_a_third(members: int) -> None:
    threshold = default_threshold(members)
    assert threshold <= members
    colluding = (members - 1) // 3
    # Two sums of one round need two thresholds of members, of whom only the colluding are in both.
    assert 2 * threshold > members + colluding


def test_thresholds_of_small_cohorts() -> None:
    assert [default_threshold(n) for n in (3, 4, 5, 6, 10)] == [3, 3, 4, 5, 7]
    assert MINIMUM_COHORT == 3


@pytest.mark.parametrize(
    ("parameters", "elements", "chunks"),
    [(1, 1, 1), (CHUNK, CHUNK, 1), (CHUNK + 1, CHUNK + 1, 2), (5 * CHUNK, 5 * CHUNK, 5)],
)
def test_masked_contributions_have_an_element_a_parameter(parameters: int, elements: int, chunks: int) -> None:
    plan = RoundPlan(**{**FIELDS, "parameters": parameters})
    assert (plan.elements, plan.chunks) == (elements, chunks)


@pytest.mark.parametrize(("parameters", "chunks"), [(1, 1), (2 * CHUNK, 1), (2 * CHUNK + 1, 2), (4 * CHUNK, 2)])
def test_sealed_contributions_have_two_parameters_a_slot_at_sixteen_bits(parameters: int, chunks: int) -> None:
    plan = RoundPlan(**{**SEALED, "parameters": parameters})
    assert (plan.elements, plan.chunks) == (-(-parameters // 2), chunks)


def test_two_attempts_at_a_round_ask_the_same_question() -> None:
    plan = RoundPlan(**FIELDS)
    for same in ({"nonce": "f" * 32}, {"deadline": 1}, {"threshold": 2}, {"cohort": ("Alto", "Bass", "Cantus")}):
        assert RoundPlan(**{**FIELDS, **same}).question() == plan.question()
    for other in ({"round": 4}, {"bits": 12}, {"model_hash": "0" * 64}, {"training": PlainTraining(steps=1)}):
        assert RoundPlan(**{**FIELDS, **other}).question() != plan.question()


def test_a_share_of_noise_for_another_threshold_answers_another_question() -> None:
    noisy = RoundPlan(**{**FIELDS, "training": NOISY})
    assert noisy.grid.honest == 3
    lower = RoundPlan(**{**FIELDS, "training": NOISY, "threshold": 2})
    assert (lower.grid.honest, lower.grid.noise_multiplier) == (2, 1.0)
    assert lower.question() != noisy.question()


def test_a_session_takes_its_keys_from_the_pinned_roster(trio: Trio) -> None:
    plan = trio.plan("sealed")
    session = plan.session(trio.roster)
    assert session.cohort == MEMBERS
    assert session.threshold == 3
    assert session.context == plan.context()
    assert session.coordinator == trio.roster.coordinator
    assert all(session.identities[name] == trio.member_key(name).public for name in MEMBERS)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"roster": "0" * 64}, ForgedMember),
        ({"federation": "quartet"}, ForgedMember),
        ({"cohort": ("Alto", "Bass", "Mallory")}, ForgedMember),
        ({"cohort": ("Alto", "Bass", "coordinator")}, ForgedMember),
        ({"seal_key": "0" * 64}, ForeignSealKey),
    ],
    ids=str,
)
def test_a_session_of_another_roster_or_key_is_refused(trio: Trio, fields: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        trio.plan("sealed", **fields).session(trio.roster)


def test_a_sealed_session_needs_a_custodian_in_the_roster(trio: Trio) -> None:
    bare = replace(trio.roster, custodian=None, signatures={})
    with pytest.raises(ForeignSealKey):
        trio.plan("sealed", roster=bare.hash).session(bare)
    assert trio.plan(roster=bare.hash).session(bare).cohort == MEMBERS
