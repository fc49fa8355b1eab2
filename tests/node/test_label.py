"""An honest label against a coordinator that has the coordinator's own key and lies with it (PROTOCOL §4)."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from trio import MEMBERS, STEPS, TRAINING, Play, Trio

from partbook.errors import (
    AlteredCiphertext,
    BadSignature,
    CohortChanged,
    CohortTooSmall,
    ConfigError,
    CorruptMessage,
    ForeignSealKey,
    ForgedMember,
    InputError,
    NotInCohort,
    OpenSumsRefused,
    OutOfTurn,
    PartbookError,
    ReplayedMessage,
    StalePlan,
    UnknownModel,
    ValueOutOfRange,
    VaultError,
    WrongVaultKey,
)
from partbook.identity import message as signed
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.receiving import ReceivingKey
from partbook.model.adapter import state_hash, unflatten
from partbook.node import label as label_module
from partbook.node.answering import answer
from partbook.node.app import app, flower_config, node_config
from partbook.node.label import LabelNode
from partbook.node.policy import Policy
from partbook.plan import exchanges as e
from partbook.plan import rounds as rounds_module
from partbook.plan import wire
from partbook.plan.rounds import RoundPlan, ServerStep
from partbook.plan.step import Motion, mean_update, step
from partbook.plan.training import PlainTraining
from partbook.sealing.parameters import generate
from partbook.secagg import messages as m
from partbook.simulation.grid import InProcessGrid
from partbook.simulation.parties import CUSTODIAN
from partbook.vault.store import Vault

ALTO = "Alto"


@pytest.fixture
def alto(trio: Trio, tmp_path: Path) -> LabelNode:
    return trio.node(ALTO, tmp_path)


def kept(folder: Path) -> dict[str, bytes]:
    """All that a node stored; what it promised to pay for training is its ledger's matter."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("ledger.sqlite")]
    return {str(path): path.read_bytes() for path in files}


def refused(folder: Path, error: type[PartbookError], act: Callable[[], object]) -> str:
    """The words of a refusal by this very error, after which nothing was stored; nothing is sent but them."""
    before = kept(folder)
    with pytest.raises(PartbookError) as caught:
        act()
    assert type(caught.value) is error, f"{caught.value!r} instead of {error.__name__}"
    assert kept(folder) == before
    return str(caught.value)


def train(trio: Trio, node: LabelNode, plan: RoundPlan) -> bytes:
    return node.train(trio.signed(plan), trio.start.tobytes() if plan.mode == "masked" else None)


def raw_plan(trio: Trio, **fields: object) -> bytes:
    """A plan that `RoundPlan` would not make, signed by the coordinator."""
    values = json.loads(trio.plan().encode()) | fields
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(b"partbook/v1/plan" + text.encode()).hexdigest()
    context = signed.Context(str(values["federation"]), int(values["round"]), digest)
    return e.write(trio.key, e.PLAN, context, COORDINATOR, e.PlanText(text=text))


# Plans


def test_an_honest_plan_is_answered_with_ready_and_nothing_else(trio, alto):
    plan = trio.plan()
    ready = signed.Message.decode(train(trio, alto, plan))
    ready.check(trio.roster.member(ALTO).identity, e.READY, plan.context(), ALTO)
    assert ready.body == {}


def test_wrong_model_hash(trio, alto, tmp_path):
    other = trio.start + 1
    why = refused(tmp_path, CorruptMessage, lambda: alto.train(trio.signed(trio.plan()), other.tobytes()))
    assert "not the one the plan names" in why
    plan = trio.plan(model_hash="0" * 64)
    refused(tmp_path, CorruptMessage, lambda: train(trio, alto, plan))


def test_wrong_model_hash_in_a_sealed_round(trio, alto, tmp_path):
    plan = trio.plan("sealed", model_hash="0" * 64)
    assert "which no agreed round led to" in refused(tmp_path, UnknownModel, lambda: train(trio, alto, plan))


@pytest.mark.parametrize(
    ("adapter", "error"),
    [
        (lambda start: start[:-1].tobytes(), UnknownModel),
        (lambda start: start.tobytes() + b"\0", CorruptMessage),
        (lambda start: b"", UnknownModel),
        (lambda start: None, CorruptMessage),
    ],
    ids=["shorter", "cut", "empty", "none"],
)
def test_an_adapter_of_another_length_is_refused(trio, alto, tmp_path, adapter, error):
    refused(tmp_path, error, lambda: alto.train(trio.signed(trio.plan()), adapter(trio.start)))


@pytest.mark.parametrize("mode", ["masked", "sealed"])
def test_a_plan_for_another_count_of_numbers_is_refused(trio, alto, tmp_path, mode):
    plan = trio.plan(mode, parameters=len(trio.start) + 1)
    refused(tmp_path, UnknownModel, lambda: train(trio, alto, plan))


def test_a_plan_on_another_base_model_is_refused(trio, alto, tmp_path):
    why = refused(tmp_path, UnknownModel, lambda: train(trio, alto, trio.plan(base_hash="0" * 64)))
    assert "same Partbook release" in why


def test_stale_plan_whose_deadline_is_over(trio, alto, tmp_path):
    assert "deadline" in refused(tmp_path, StalePlan, lambda: train(trio, alto, trio.plan(deadline=1)))


def test_stale_plan_of_a_round_that_is_over(trio, alto, tmp_path):
    train(trio, alto, trio.plan(round=2))
    assert "already trained for round 2" in refused(tmp_path, StalePlan, lambda: train(trio, alto, trio.plan()))
    again = trio.node(ALTO, tmp_path)
    refused(tmp_path, StalePlan, lambda: train(trio, again, trio.plan()))


@pytest.mark.parametrize(
    "other",
    [{"bits": 12}, {"training": TRAINING.model_copy(update={"clip": 0.25})}],
    ids=["another grid", "another clip"],
)
def test_stale_plan_that_asks_another_question_of_the_same_round(trio, alto, tmp_path, other):
    train(trio, alto, trio.plan())
    plan = trio.plan(nonce="1" * 32, **other)
    assert "one question a round" in refused(tmp_path, StalePlan, lambda: train(trio, alto, plan))


def test_replayed_plan_of_another_federation(trio, alto, tmp_path):
    # The same coordinator with the same key may run both.
    refused(tmp_path, ForgedMember, lambda: train(trio, alto, trio.plan(federation="quartet")))
    plan = trio.plan()
    body = e.PlanText(text=plan.encode().decode())
    for context in (
        replace(plan.context(), federation="quartet"),
        replace(plan.context(), round=2),
        replace(plan.context(), plan="0" * 64),
    ):
        around = e.write(trio.key, e.PLAN, context, COORDINATOR, body)
        refused(tmp_path, ReplayedMessage, lambda around=around: alto.train(around, trio.start.tobytes()))


def test_a_message_of_another_kind_is_no_plan(trio, alto, tmp_path):
    plan = trio.plan()
    other = trio.say(e.OPEN, plan, e.PlanText(text=plan.encode().decode()))
    refused(tmp_path, ReplayedMessage, lambda: alto.train(other, trio.start.tobytes()))


def test_a_plan_for_another_roster_is_refused(trio, alto, tmp_path):
    refused(tmp_path, ForgedMember, lambda: train(trio, alto, trio.plan(roster="0" * 64)))


def test_forged_roster_member_in_the_cohort(trio, alto, tmp_path):
    plan = trio.plan(cohort=("Alto", "Bass", "Mallory"))
    assert "Mallory" in refused(tmp_path, ForgedMember, lambda: train(trio, alto, plan))


def test_the_custodian_cannot_be_put_into_the_cohort(trio, alto, tmp_path):
    plan = trio.plan(cohort=tuple(sorted(("Alto", "Bass", CUSTODIAN))))
    refused(tmp_path, ForgedMember, lambda: train(trio, alto, plan))


def test_a_plan_that_the_coordinator_did_not_sign_is_refused(trio, alto, tmp_path):
    plan = trio.plan()
    for key in (IdentityKey.generate(), trio.member_key("Bass")):
        forged = e.write_plan(key, plan)
        refused(tmp_path, BadSignature, lambda forged=forged: alto.train(forged, trio.start.tobytes()))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"threshold": 1}, "half"),
        ({"threshold": 0}, "half"),
        ({"threshold": -3}, "half"),
        ({"threshold": 4}, "half"),
        ({"cohort": ["Alto", "Bass"], "threshold": 2}, "at least 3"),
        ({"cohort": ["Alto"], "threshold": 1}, "at least 3"),
        ({"cohort": ["Alto", "Alto", "Bass"]}, "once"),
        ({"mode": "clear"}, "mode"),
        ({"mode": "sealed"}, "custodian's key"),
        ({"protocol": "partbook/v2"}, "protocol"),
    ],
    ids=str,
)
def test_a_plan_that_would_open_too_much_is_refused(trio, alto, tmp_path, fields, word):
    plan = raw_plan(trio, **fields)
    assert word in refused(tmp_path, CorruptMessage, lambda: alto.train(plan, trio.start.tobytes()))


def test_a_plan_for_others_is_not_answered(trio, alto, tmp_path):
    plan = trio.plan(cohort=("Bass", "Cantus", "Tenor"))
    refused(tmp_path, NotInCohort, lambda: train(trio, alto, plan))


def test_foreign_he_key_in_the_plan(trio, alto, tmp_path):
    other = generate()[1]
    plan = trio.plan("sealed", seal_key=other.key_id)
    assert "could open the sum" in refused(tmp_path, ForeignSealKey, lambda: train(trio, alto, plan))


def test_foreign_he_key_in_the_nodes_own_file(trio, tmp_path):
    path = tmp_path / "other.public"
    generate()[1].write(path)
    with pytest.raises(ForeignSealKey):
        LabelNode(replace(trio.config(ALTO, tmp_path / "state"), seal_key=path))
    bare = trio.rewritten(tmp_path / "bare.toml", custodian=None)
    with pytest.raises(ForeignSealKey, match="names no custodian"):
        LabelNode(replace(trio.config(ALTO, tmp_path / "state"), roster=bare))


@pytest.mark.parametrize("missing", ["receiving", "seal_key"])
def test_sealed_rounds_need_the_keys_for_them(trio, tmp_path, missing):
    node = LabelNode(replace(trio.config(ALTO, tmp_path), **{missing: None}))
    refused(tmp_path, ConfigError, lambda: train(trio, node, trio.plan("sealed")))


def test_a_masked_round_where_the_label_wants_sums_sealed(trio, tmp_path):
    careful = trio.parties.node(trio.config(ALTO, tmp_path), Policy(epsilon_recording=inf, noise=("none",)))
    node = LabelNode(careful)
    assert "would read its sum" in refused(tmp_path, OpenSumsRefused, lambda: train(trio, node, trio.plan("masked")))
    train(trio, node, trio.plan("sealed"))


def test_a_node_with_another_identity_key_than_the_rosters_takes_no_part(trio, tmp_path):
    path = tmp_path / "other.pem"
    IdentityKey.generate().save(path)
    with pytest.raises(ConfigError, match=r"identity: .*other\.pem is not the key that the roster lists for Alto"):
        LabelNode(replace(trio.config(ALTO, tmp_path), identity=path))


def test_a_node_with_another_receiving_key_than_the_rosters_takes_no_part(trio, tmp_path):
    path = tmp_path / "other.receiving.pem"
    ReceivingKey.generate().save(path)
    with pytest.raises(ConfigError, match=r"receiving: .* is not the key that the roster lists for Alto"):
        LabelNode(replace(trio.config(ALTO, tmp_path), receiving=path))


def test_an_adapter_on_which_training_diverges_is_refused_and_nothing_is_stored(trio, alto, tmp_path):
    wild = np.full_like(trio.start, np.nan)
    like = unflatten(wild, alto._trainer.like)
    plan = trio.plan(model_hash=state_hash(like))
    refused(tmp_path, ValueOutOfRange, lambda: alto.train(trio.signed(plan), wild.tobytes()))


# Exchanges


def test_exchanges_out_of_turn(trio, alto, tmp_path):
    plan = trio.plan()
    begin, proceed = trio.say(e.BEGIN, plan), trio.say(e.PROCEED, plan, e.Proceed(chunk=0))
    keys, inbox = trio.say(m.KEYS, plan, m.Keys(messages=())), trio.say(m.INBOX, plan, m.Inbox(shares={}))
    for act in (
        lambda: alto.advertise(begin),
        lambda: alto.share(keys),
        lambda: alto.contribute(inbox),
        lambda: alto.proceed(proceed),
    ):
        refused(tmp_path, StalePlan, act)  # it has trained for nothing
    train(trio, alto, plan)
    survivors = trio.say(m.SURVIVORS, plan, m.Survivors(survivors=MEMBERS))
    reveal = trio.say(m.REVEAL, plan, m.Reveal(survivors=MEMBERS, dropped=(), confirmations=()))
    for act in (
        lambda: alto.share(keys),
        lambda: alto.contribute(inbox),
        lambda: alto.proceed(proceed),
        lambda: alto.confirm(survivors),
        lambda: alto.reveal(reveal),
    ):
        refused(tmp_path, OutOfTurn, act)


def test_begin_and_proceed_count_only_from_the_coordinator_and_for_this_attempt(trio, tmp_path):
    nodes, plan = trio.nodes(tmp_path), trio.plan()
    played = Play(trio, nodes, plan).train()
    other = trio.plan(nonce="2" * 32)
    node = nodes[ALTO]
    forged = e.write(IdentityKey.generate(), e.BEGIN, plan.context(), COORDINATOR)
    refused(tmp_path, BadSignature, lambda: node.advertise(forged))
    refused(tmp_path, ReplayedMessage, lambda: node.advertise(trio.say(e.BEGIN, other)))
    refused(tmp_path, ReplayedMessage, lambda: node.advertise(trio.say(e.PROCEED, plan, e.Proceed(chunk=0))))
    played.play(("advertise", "share", "contribute"))
    refused(tmp_path, ReplayedMessage, lambda: node.proceed(trio.say(e.PROCEED, other, e.Proceed(chunk=0))))
    refused(tmp_path, CorruptMessage, lambda: node.proceed(trio.say(e.PROCEED, plan, e.Proceed(chunk=1))))
    refused(tmp_path, CorruptMessage, lambda: node.proceed(trio.say(e.PROCEED, plan, e.Nothing())))


def test_below_the_threshold_nothing_is_revealed(trio, tmp_path):
    nodes, plan = trio.nodes(tmp_path), trio.plan()
    Play(trio, nodes, plan).train().play(("advertise", "share", "contribute"))
    short = trio.say(m.SURVIVORS, plan, m.Survivors(survivors=("Alto", "Bass")))
    refused(tmp_path, CohortTooSmall, lambda: nodes[ALTO].confirm(short))


# Retries and restarts


def test_a_repeated_plan_changes_nothing(trio, alto, tmp_path):
    plan = trio.plan()
    train(trio, alto, plan)
    before = kept(tmp_path)
    train(trio, alto, plan)
    assert kept(tmp_path) == before


def test_a_retry_of_the_round_sends_the_stored_vector_under_fresh_masks_without_training_again(trio, tmp_path):
    nodes = trio.nodes(tmp_path, seed=None)  # trained again, it would be another vector
    first = Play(trio, nodes, trio.plan()).train()
    stored = sum(node._vector.astype(np.int64) for node in nodes.values())
    first.play(("advertise", "share", "contribute", "confirm"))
    again = Play(trio, nodes, trio.plan(nonce="1" * 32)).train().play()
    assert np.array_equal(again.sum(), stored)
    for member in MEMBERS:
        assert len((tmp_path / f"{member}.jsonl").read_text().splitlines()) == 1
        one, two = (np.frombuffer(play.said["contribute"][member][1], np.uint32) for play in (first, again))
        assert (one == two).mean() < 0.01


def test_without_a_seed_two_nodes_train_differently(trio, tmp_path):
    vectors = []
    for index in range(2):
        node = trio.node(ALTO, tmp_path / str(index), seed=None)
        train(trio, node, trio.plan())
        vectors.append(node._vector)
    assert not np.array_equal(*vectors)


def test_an_attempt_that_was_left_is_not_taken_up_again(trio, tmp_path):
    nodes, first = trio.nodes(tmp_path), trio.plan()
    Play(trio, nodes, first).train().play(("advertise", "share", "contribute", "confirm"))
    second = trio.plan(nonce="1" * 32)
    train(trio, nodes[ALTO], second)
    assert "planned anew" in refused(tmp_path, StalePlan, lambda: train(trio, nodes[ALTO], first))
    again = trio.node(ALTO, tmp_path)
    refused(tmp_path, StalePlan, lambda: train(trio, again, first))
    train(trio, again, second)
    train(trio, again, trio.plan(nonce="2" * 32))
    refused(tmp_path, StalePlan, lambda: train(trio, again, second))


def test_two_sums_of_the_same_updates_are_refused_since_they_could_differ_by_one(trio, tmp_path):
    # The coordinator opens a sum, says that the attempt failed, and asks for one with others in it.
    nodes = trio.nodes(tmp_path)
    played = Play(trio, nodes, trio.plan()).train().play()
    assert played.sum().any()
    second = trio.plan(nonce="1" * 32)
    for member, node in nodes.items():
        assert "by a single one" in refused(tmp_path, StalePlan, lambda node=node: train(trio, node, second)), member
    again = trio.node(ALTO, tmp_path)
    refused(tmp_path, StalePlan, lambda: train(trio, again, second))
    # The attempt itself may be finished, and the next round be planned.
    for node in (nodes[ALTO], again):
        assert node.reveal(played.asks("reveal")[ALTO]) == played.said["reveal"][ALTO]
    train(trio, again, trio.plan(round=2))


@pytest.mark.parametrize("mode", ["masked", "sealed"])
def test_a_node_that_is_restarted_at_every_exchange_goes_on(trio, tmp_path, mode):
    plan = trio.plan(mode)
    played = Play(trio, trio.nodes(tmp_path), plan).train()
    stored = sum(node._vector.astype(np.int64) for node in played.nodes.values())
    for name in STEPS:
        played.nodes = trio.nodes(tmp_path)
        played.play((name,))
        if name != "contribute":
            asks, again = played.asks(name), trio.nodes(tmp_path)
            for member in MEMBERS:
                assert getattr(again[member], name)(asks[member]) == played.said[name][member]
    if mode == "masked":
        assert np.array_equal(played.sum(), stored)
    else:
        (blob,) = played.sealed()
        slots = label_slots(trio, tmp_path, plan, played, blob)
        assert np.array_equal(plan.packing.unpack(slots, plan.parameters, 3), stored)


def label_slots(trio: Trio, folder: Path, plan: RoundPlan, played: Play, blob: bytes) -> np.ndarray:
    """What a label finds in the custodian's answer."""
    message, encrypted = opened_by_the_custodian(trio, folder, plan, played, blob)
    body = e.Opened.of(signed.Message.decode(message))
    key = ReceivingKey.load(trio.parties.folders[ALTO] / "receiving.pem")
    unwrapped = key.open(base64.b64decode(body.keys[ALTO]), e.opened_info(plan.context(), 0, ALTO))
    return np.frombuffer(e.decrypt_sum(unwrapped, plan.context(), 0, encrypted), "<u8")


def opened_by_the_custodian(
    trio: Trio, folder: Path, plan: RoundPlan, played: Play, blob: bytes
) -> tuple[bytes, bytes]:
    confirmations = tuple(text.decode() for text in played.machine.confirmations())
    body = e.Open(survivors=MEMBERS, confirmations=confirmations, chunk=0, sha256=hashlib.sha256(blob).hexdigest())
    return trio.custodian(folder / "office").open(trio.signed(plan), trio.say(e.OPEN, plan, body), blob)


def test_a_vector_of_several_chunks_is_sent_piece_by_piece(trio, tmp_path, monkeypatch):
    from partbook.coordinator import totals

    for module in (label_module, rounds_module, totals):
        monkeypatch.setattr(module, "CHUNK", -(-len(trio.start) // 3))
    nodes, plan = trio.nodes(tmp_path), trio.plan()
    assert plan.chunks == 3
    played = Play(trio, nodes, plan).train()
    stored = sum(node._vector.astype(np.int64) for node in nodes.values())
    assert np.array_equal(played.play().sum(), stored)


# What is on the disk


def spellings(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), base64.b64encode(secret)[: len(secret)]]


def test_state_at_rest_is_encrypted(trio, tmp_path):
    nodes = trio.nodes(tmp_path)
    played = Play(trio, nodes, trio.plan()).train()
    secrets = []
    for node in nodes.values():
        machine = node._round
        secrets += [machine._self_secret, machine._mask_key.private_bytes_raw(), machine._share_key.private_bytes_raw()]
        secrets.append(node._vector[:16].tobytes())
    for name in STEPS:
        played.play((name,))
        disk = b"".join(kept(tmp_path).values())
        assert len(disk) > 3 * 4 * len(trio.start)
        for node in nodes.values():
            secrets += [share for both in node._round._shares.values() for share in both]
        assert not [secret for secret in secrets for text in spellings(secret) if text in disk]
    for path in tmp_path.rglob("*.sealed"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["vector", "exchange"])
def test_altered_state_is_named(trio, alto, tmp_path, name):
    train(trio, alto, trio.plan())
    path = tmp_path / ALTO / f"{name}.sealed"
    whole = path.read_bytes()
    for blob in (whole[:-1], whole[:5], b"", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        path.write_bytes(blob)
        with pytest.raises(WrongVaultKey, match=name):
            trio.node(ALTO, tmp_path)


def test_state_of_another_name_or_another_label_does_not_open(trio, alto, tmp_path):
    train(trio, alto, trio.plan())
    folder = tmp_path / ALTO
    shutil.copytree(folder, tmp_path / "Bass", ignore=shutil.ignore_patterns("ledger.sqlite*"))
    with pytest.raises(WrongVaultKey):
        trio.node("Bass", tmp_path)
    shutil.copy(folder / "vector.sealed", folder / "exchange.sealed")
    with pytest.raises(WrongVaultKey):
        trio.node(ALTO, tmp_path)


class FullDisk:
    """A disk on which nothing more can be written until `free`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        self._patch, self._call = monkeypatch.context(), call

    def __enter__(self) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self._patch.__enter__().setattr(os, self._call, full)

    def __exit__(self, *error: object) -> None:
        self._patch.__exit__(None, None, None)


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_full_disk_ends_an_exchange_by_name_and_nothing_is_sent(trio, tmp_path, monkeypatch, call):
    nodes, plan = trio.nodes(tmp_path), trio.plan()
    with FullDisk(monkeypatch, call):
        why = refused(tmp_path, VaultError, lambda: train(trio, nodes[ALTO], plan))
    assert "No space left" in why
    played = Play(trio, nodes, plan).train()
    stored = sum(node._vector.astype(np.int64) for node in nodes.values())
    for name in STEPS:
        ask = played.asks(name)[ALTO]
        with FullDisk(monkeypatch, call):
            refused(tmp_path, VaultError, lambda name=name, ask=ask: getattr(nodes[ALTO], name)(ask))
        played.play((name,))  # space was freed
    assert np.array_equal(played.sum(), stored)


def test_a_node_whose_disk_was_full_and_that_was_restarted_goes_on_from_before(trio, tmp_path, monkeypatch):
    nodes, plan = trio.nodes(tmp_path), trio.plan()
    played = Play(trio, nodes, plan).train().play(("advertise",))
    ask = played.asks("share")[ALTO]
    with FullDisk(monkeypatch, "fsync"):
        refused(tmp_path, VaultError, lambda: nodes[ALTO].share(ask))
    played.nodes = trio.nodes(tmp_path)
    assert played.play(STEPS[1:]).sum().any()


def test_a_full_disk_leaves_the_attempt_before(trio, alto, tmp_path, monkeypatch):
    train(trio, alto, trio.plan())
    second = trio.plan(nonce="1" * 32)
    with FullDisk(monkeypatch, "fsync"):
        refused(tmp_path, VaultError, lambda: train(trio, alto, second))
    alto.advertise(trio.say(e.BEGIN, trio.plan()))
    train(trio, alto, second)
    alto.advertise(trio.say(e.BEGIN, second))


# Opened sums

EVERYBODY = dict.fromkeys(MEMBERS)


def opened(
    trio: Trio,
    plan: RoundPlan,
    total: np.ndarray | None = None,
    *,
    contributions: int = 3,
    key: IdentityKey | None = None,
    sender: str = CUSTODIAN,
    receivers: dict[str, str | None] = EVERYBODY,
    chunk: int = 0,
) -> tuple[bytes, bytes]:
    """What a custodian says, who may lie: a sum of numbers in the middle of the grid where none is given."""
    if total is None:
        total = np.full(plan.parameters, contributions * plan.grid.largest, np.uint32)
    packing = plan.packing
    digits = np.zeros((packing.slots(len(total)), packing.fields), np.uint64)
    digits.reshape(-1)[: len(total)] = total
    slots = sum(digits[:, f] * np.uint64(packing.radix**f) for f in range(packing.fields))
    once = os.urandom(32)
    blob = e.encrypt_sum(once, plan.context(), chunk, slots.astype("<u8").tobytes())
    keys = {}
    for name, other in receivers.items():
        public = trio.roster.member(other or name).receiving
        keys[name] = e.text(public.seal_to(once, e.opened_info(plan.context(), chunk, name)))
    body = e.Opened(contributions=contributions, chunk=chunk, sha256=hashlib.sha256(blob).hexdigest(), keys=keys)
    return e.write(key or trio.member_key(CUSTODIAN), e.OPENED, plan.context(), sender, body), blob


def test_every_label_takes_the_same_step_from_an_opened_sum_and_signs_the_model(trio, tmp_path):
    plan = trio.plan("sealed", step=ServerStep(learning_rate=0.5, momentum=0.5))
    nodes = trio.nodes(tmp_path)
    played = Play(trio, nodes, plan).train()
    stored = sum(node._vector.astype(np.int64) for node in nodes.values()).astype(np.uint64)
    (blob,) = played.play().sealed()
    message, encrypted = opened_by_the_custodian(trio, tmp_path, plan, played, blob)
    moved, _ = step(trio.start, mean_update(stored, 3, plan), Motion.none(len(trio.start)), plan.step)
    for member, node in nodes.items():
        applied = signed.Message.decode(node.apply(trio.signed(plan), [message], [encrypted]))
        applied.check(trio.roster.member(member).identity, e.APPLIED, plan.context(), member)
        assert e.ModelHash.of(applied).model == state_hash(unflatten(moved, node._trainer.like))
    # The next round starts from there, and from nowhere else.
    refused(tmp_path, UnknownModel, lambda: train(trio, nodes[ALTO], trio.plan("sealed", round=2)))
    train(trio, nodes[ALTO], trio.plan("sealed", round=2, model_hash=nodes[ALTO]._held.shared.hash))


def test_an_opened_sum_applied_twice_counts_once(trio, alto, tmp_path):
    plan = trio.plan("sealed", bits=8)
    total = np.arange(plan.parameters, dtype=np.uint32) % (3 * plan.grid.span)
    message, blob = opened(trio, plan, total)
    first = alto.apply(trio.signed(plan), [message], [blob])
    before = kept(tmp_path)
    for node in (alto, trio.node(ALTO, tmp_path)):
        again = node.apply(trio.signed(plan), [message], [blob])
        assert signed.Message.decode(again).body == signed.Message.decode(first).body
    assert kept(tmp_path) == before


def lies(trio: Trio) -> dict[str, tuple[type[PartbookError], RoundPlan, list[bytes], list[bytes]]]:
    plan, masked = trio.plan("sealed"), trio.plan()
    message, blob = opened(trio, plan)
    other = opened(trio, trio.plan("sealed", nonce="1" * 32))
    later = trio.plan("sealed", round=2, model_hash="1" * 64)
    elsewhere = trio.plan("sealed", model_hash="0" * 64)
    flipped = bytes([blob[0] ^ 1]) + blob[1:]
    too_much = np.full(plan.parameters, 3 * plan.grid.span + 1, np.uint32)
    short = opened(trio, plan, np.zeros(10, np.uint32))
    stranger = IdentityKey.generate()
    return {
        "not the custodian's signature": (BadSignature, plan, *pair(opened(trio, plan, key=stranger))),
        "the coordinator's signature": (BadSignature, plan, *pair(opened(trio, plan, key=trio.key))),
        "another sender": (
            ForgedMember,
            plan,
            *pair(opened(trio, plan, key=trio.member_key("Bass"), sender="Bass")),
        ),
        "an altered blob": (AlteredCiphertext, plan, [message], [flipped]),
        "the blob of another attempt": (AlteredCiphertext, plan, [message], [other[1]]),
        "the message of another attempt": (ReplayedMessage, plan, *pair(other)),
        "wrapped to another member": (CorruptMessage, plan, *pair(opened(trio, plan, receivers={ALTO: "Bass"}))),
        "wrapped to others only": (CorruptMessage, plan, *pair(opened(trio, plan, receivers={"Bass": None}))),
        "another chunk": (AlteredCiphertext, plan, *pair(opened(trio, plan, chunk=1))),
        "a chunk missing": (CorruptMessage, plan, [], []),
        "a chunk too many": (CorruptMessage, plan, [message] * 2, [blob] * 2),
        "a blob missing": (CorruptMessage, plan, [message], []),
        "too few contributions": (CorruptMessage, plan, *pair(opened(trio, plan, contributions=2))),
        "too many contributions": (CorruptMessage, plan, *pair(opened(trio, plan, contributions=4))),
        "a sum that nobody's updates give": (ValueOutOfRange, plan, *pair(opened(trio, plan, too_much))),
        "too few slots": (CorruptMessage, plan, *pair(short)),
        "a round later than the next": (UnknownModel, later, *pair(opened(trio, later))),
        "a round from another model": (UnknownModel, elsewhere, *pair(opened(trio, elsewhere))),
        "a masked plan": (CorruptMessage, masked, [message], [blob]),
        "another roster's plan": (ForgedMember, trio.plan("sealed", roster="0" * 64), [message], [blob]),
    }


def pair(both: tuple[bytes, bytes]) -> tuple[list[bytes], list[bytes]]:
    return [both[0]], [both[1]]


def test_an_opened_sum_that_is_not_what_the_custodian_opened_for_this_round_is_refused(trio, alto, tmp_path):
    before = alto._held.shared.hash
    found: dict[str, type[PartbookError]] = {}
    for what, (_, plan, messages, blobs) in lies(trio).items():
        try:
            alto.apply(trio.signed(plan), messages, blobs)
        except PartbookError as error:
            found[what] = type(error)
        assert alto._held.shared.hash == before, what
        assert not (tmp_path / ALTO / "model.safetensors").exists(), what
    assert found == {what: error for what, (error, *_) in lies(trio).items()}
    plan = trio.plan("sealed")
    alto.apply(trio.signed(plan), *pair(opened(trio, plan)))


def test_a_full_disk_leaves_the_model_where_it_was(trio, alto, tmp_path, monkeypatch):
    plan = trio.plan("sealed")
    parts = pair(opened(trio, plan, np.zeros(plan.parameters, np.uint32)))
    before = alto._held.shared.hash
    with FullDisk(monkeypatch, "fsync"):
        refused(tmp_path, VaultError, lambda: alto.apply(trio.signed(plan), *parts))
    assert alto._held.shared.hash == before
    alto.apply(trio.signed(plan), *parts)
    assert alto._held.shared.hash == trio.node(ALTO, tmp_path)._held.shared.hash != before


# Releases


@pytest.fixture
def stepped(trio: Trio, tmp_path: Path) -> tuple[RoundPlan, dict[str, LabelNode]]:
    plan, nodes = trio.plan("sealed"), trio.nodes(tmp_path)
    parts = pair(opened(trio, plan, np.zeros(plan.parameters, np.uint32)))
    for node in nodes.values():
        node.apply(trio.signed(plan), *parts)
    return plan, nodes


def ask_endorse(trio: Trio, plan: RoundPlan, model: str) -> bytes:
    return trio.say(e.ENDORSE, plan, e.ModelHash(model=model))


def test_a_label_endorses_the_model_that_it_holds_and_no_other(trio, stepped, tmp_path):
    plan, nodes = stepped
    node = nodes[ALTO]
    message = trio.signed(plan)
    endorsed = signed.Message.decode(node.endorse(message, ask_endorse(trio, plan, node._held.shared.hash)))
    endorsed.check(trio.roster.member(ALTO).identity, e.ENDORSED, plan.context(), ALTO)
    refused(tmp_path, UnknownModel, lambda: node.endorse(message, ask_endorse(trio, plan, "0" * 64)))
    refused(tmp_path, ReplayedMessage, lambda: node.endorse(message, trio.say(e.PUBLISH, plan)))
    for odd, error in (
        (trio.plan("sealed", round=2), StalePlan),
        (trio.plan("sealed", federation="quartet"), ForgedMember),
        (trio.plan("sealed", roster="0" * 64), ForgedMember),
    ):
        request = ask_endorse(trio, odd, node._held.shared.hash)
        refused(tmp_path, error, lambda odd=odd, request=request: node.endorse(trio.signed(odd), request))


def test_a_model_is_published_only_with_as_many_endorsements_as_a_round_needs(trio, stepped, tmp_path):
    plan, nodes = stepped
    node, model = nodes[ALTO], nodes[ALTO]._held.shared.hash
    message = trio.signed(plan)
    good = [n.endorse(message, ask_endorse(trio, plan, model)).decode() for n in nodes.values()]

    def say(member: str, about: str = model, context: RoundPlan = plan, key: IdentityKey | None = None) -> str:
        body = e.ModelHash(model=about)
        return e.write(key or trio.member_key(member), e.ENDORSED, context.context(), member, body).decode()

    def publish(*endorsements: str) -> tuple[bytes, bytes]:
        return node.publish(message, trio.say(e.PUBLISH, plan, e.Publish(endorsements=endorsements)))

    for endorsements, error in (
        ((), CorruptMessage),
        (good[:2], CorruptMessage),
        ([*good[:2], good[0], good[1]], CorruptMessage),
        ([*good[:2], say("Bass")], CorruptMessage),  # another signature of the same member
        ([*good[:2], say("Tenor", about="0" * 64)], CorruptMessage),
        ([*good[:2], say("Tenor", key=trio.key)], BadSignature),
        ([*good[:2], say("Mallory", key=IdentityKey.generate())], ForgedMember),
        ([*good[:2], say(CUSTODIAN)], ForgedMember),
        ([*good[:2], say("Tenor", context=trio.plan("sealed", nonce="1" * 32))], ReplayedMessage),
    ):
        refused(tmp_path, error, lambda endorsements=endorsements: publish(*endorsements))
    published, blob = publish(*good)
    signed.Message.decode(published).check(trio.roster.member(ALTO).identity, e.PUBLISHED, plan.context(), ALTO)
    assert state_hash(unflatten(np.frombuffer(blob, "<f4"), node._trainer.like)) == model


# The edge


def test_a_vault_that_cannot_be_used_is_named(trio, tmp_path):
    with Vault.create(tmp_path / "empty"):
        pass
    config = trio.config(ALTO, tmp_path / "state")
    with pytest.raises(InputError, match="node ingest"):
        LabelNode(replace(config, vault=tmp_path / "empty"))
    with pytest.raises(WrongVaultKey):
        LabelNode(replace(config, key=tmp_path / "empty" / "vault.key"))


def test_the_nodes_configuration_never_comes_from_the_coordinator():
    hostile = {"member": "Bass", "vault": "/elsewhere", "roster": "/r2", "seal-key": "/theirs", "policy": "/p"}
    own = {"member": "Alto", "vault": "/v", "roster": "/r", "identity": "/i"}
    config = node_config(Context(1, 2, own, RecordDict(), hostile))
    assert (config.member, config.vault, config.roster, config.seal_key) == ("Alto", Path("/v"), Path("/r"), None)
    assert config.policy is None
    for key in own:
        with pytest.raises(ConfigError, match=key):
            node_config(Context(1, 2, {k: v for k, v in own.items() if k != key}, RecordDict(), hostile))


def test_a_style_reaches_the_windows_that_the_label_trains_on_and_no_other_place(trio, tmp_path):
    config = replace(trio.config(ALTO, tmp_path / "state"), style=3)
    own = flower_config(config)
    assert node_config(Context(1, 2, own, RecordDict(), {"style": 9})) == config
    assert node_config(Context(1, 2, own | {"style": "3"}, RecordDict(), {})) == config, "a SuperNode may give texts"
    for wrong in (16, -1, "three", 2.5):
        with pytest.raises(ConfigError, match="is no style; give a number from 0 to 15"):
            node_config(Context(1, 2, own | {"style": wrong}, RecordDict(), {}))
    node = LabelNode(config)
    assert node._trainer._examples.style == 3
    node.close()
    assert trio.plan().model_fields.keys().isdisjoint({"style", "styles"}), "no plan asks for one"


def test_an_error_that_nobody_foresaw_tells_its_kind_and_not_its_words():
    def work() -> RecordDict:
        raise OSError("The lost tapes of 1961, side B")

    InProcessGrid(app, {2: {}})  # stamps messages, as Flower's runtime does
    request = Message(RecordDict(), 2, wire.TRAIN)
    request.metadata.__dict__["_message_id"] = "1"
    reply = answer(request, work)
    record = dict(reply.content.config_records["refusal"])
    assert "OSError" in record["reason"]
    assert "tapes" not in str(record)


def test_a_second_list_of_keys_is_refused(trio, tmp_path):
    nodes = trio.nodes(tmp_path)
    played = Play(trio, nodes, trio.plan()).train().play(("advertise",))
    keys = played.asks("share")[ALTO]
    texts = m.Keys.of(signed.Message.decode(keys)).messages
    nodes[ALTO].share(keys)
    other = trio.say(m.KEYS, trio.plan(), m.Keys(messages=tuple(reversed(texts))))
    refused(tmp_path, CohortChanged, lambda: nodes[ALTO].share(other))


def test_a_question_is_the_same_for_two_attempts_and_another_for_what_changes_the_answer(trio):
    plan = trio.plan()
    assert plan.question() == trio.plan(nonce="1" * 32, deadline=7, threshold=2).question()
    for fields in ({"round": 2}, {"bits": 8}, {"training": PlainTraining()}, {"model_hash": "0" * 64}):
        assert trio.plan(**fields).question() != plan.question()
