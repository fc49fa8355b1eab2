import hashlib

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from trio import MEMBERS, Trio

from partbook.coordinator.grid import GridTransport
from partbook.custodian.app import app, close_custodians, custodian, custodian_config
from partbook.errors import ConfigError, NodeFailed
from partbook.identity.message import Message
from partbook.plan import exchanges as e
from partbook.plan import wire
from partbook.plan.greeting import Greeter
from partbook.plan.rounds import RoundPlan
from partbook.sealing.blocks import SealedSum, seal
from partbook.sealing.parameters import SealPublic
from partbook.secagg import messages as m
from partbook.simulation.grid import InProcessGrid
from partbook.simulation.parties import CUSTODIAN


def values(trio: Trio, tmp_path) -> dict[str, str]:
    config = trio.parties.custodian
    return {
        "custodian": config.name,
        "roster": str(config.roster),
        "identity": str(config.identity),
        "secret": str(config.secret),
        "record": str(tmp_path / "opened.json"),
    }


@pytest.fixture
def office(trio: Trio, tmp_path):
    with InProcessGrid(app, {7: values(trio, tmp_path)}) as grid:
        yield GridTransport(grid, (CUSTODIAN,), Greeter(trio.key, trio.roster))
    close_custodians()


def content(trio: Trio, plan: RoundPlan, signers: tuple[str, ...]) -> RecordDict:
    public = SealPublic.read(trio.parties.seal_key, None)
    sealed = SealedSum(plan.elements)
    for _ in MEMBERS:
        sealed.add(seal(public, np.ones(plan.elements, np.uint64)))
    blob = sealed.serialise()
    confirmed = m.Confirmed(digest=plan.session(trio.roster).survivors_digest(MEMBERS), count=3)
    request = e.Open(
        survivors=MEMBERS,
        confirmations=tuple(
            e.write(trio.member_key(name), m.CONFIRMED, plan.context(), name, confirmed).decode() for name in signers
        ),
        chunk=0,
        sha256=hashlib.sha256(blob).hexdigest(),
    )
    return wire.pack([trio.signed(plan), trio.say(e.OPEN, plan, request)], [blob])


def test_a_sum_crosses_the_grid_and_comes_back_for_the_labels(trio, office) -> None:
    plan = trio.plan("sealed", parameters=5)
    answer = office.exchange(wire.OPEN, {CUSTODIAN: content(trio, plan, MEMBERS)}, timeout=30)[CUSTODIAN]
    assert isinstance(answer, RecordDict)
    (opened,), (blob,) = wire.unpack(answer, blobs=1)
    body = e.Opened.of(Message.decode(opened))
    assert body.sha256 == hashlib.sha256(blob).hexdigest()
    assert set(body.keys) == set(MEMBERS)


def test_a_refusal_is_a_name_and_a_sentence(trio, office) -> None:
    plan = trio.plan("sealed", parameters=5)
    answer = office.exchange(wire.OPEN, {CUSTODIAN: content(trio, plan, MEMBERS[:2])}, timeout=30)[CUSTODIAN]
    assert set(answer) == {"refusal"}
    with pytest.raises(NodeFailed, match="Custodian declined with CohortTooSmall"):
        wire.raise_refusal(answer, CUSTODIAN)


def test_anything_beside_a_plan_a_request_and_a_chunk_is_refused(trio, office) -> None:
    plan = trio.plan("sealed", parameters=5)
    whole = content(trio, plan, MEMBERS)
    messages, blobs = wire.unpack(whole, signed=None, blobs=None)
    for odd in (
        wire.pack(messages),
        wire.pack(messages[:1], blobs),
        wire.pack(messages, [*blobs, b""]),
        RecordDict(),
    ):
        answer = office.exchange(wire.OPEN, {CUSTODIAN: odd}, timeout=30)[CUSTODIAN]
        with pytest.raises(NodeFailed, match="CorruptMessage"):
            wire.raise_refusal(answer, CUSTODIAN)


def test_a_missing_key_of_the_configuration_is_named(trio, tmp_path) -> None:
    good = values(trio, tmp_path)
    assert custodian_config(Context(1, 2, good, RecordDict(), {})).name == CUSTODIAN
    for key in good:
        broken = {k: v for k, v in good.items() if k != key}
        with pytest.raises(ConfigError, match=key):
            custodian_config(Context(1, 2, broken, RecordDict(), good))


def test_a_custodian_is_opened_once_a_process(trio, tmp_path) -> None:
    context = Context(1, 2, values(trio, tmp_path), RecordDict(), {})
    first = custodian(context)
    assert custodian(context) is first
    close_custodians()
    assert custodian(context) is not first
    close_custodians()
