import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from partbook.errors import CorruptMessage, NodeFailed, StalePlan
from partbook.plan import wire
from partbook.plan.rounds import LocalTraining, Locks, RoundPlan

PLAN = RoundPlan(
    federation="quartet", round=1, base_hash="a" * 64, model_hash="b" * 64, cohort=("A", "B", "C"), threshold=3,
    training=LocalTraining(), locks=Locks(),
)  # fmt: skip
VECTOR = np.linspace(-1, 1, 9, dtype=np.float32)


def test_messages_survive_packing() -> None:
    plan, adapter = wire.unpack_train(wire.pack_train(PLAN, VECTOR))
    assert plan == PLAN
    assert np.array_equal(adapter, VECTOR)
    assert wire.unpack_ready(wire.pack_ready("h")) == "h"
    assert wire.unpack_ask(wire.pack_ask("h")) == "h"
    assert wire.unpack_member(wire.pack_member("A")) == "A"
    answered, update = wire.unpack_contribution(wire.pack_contribution("h", VECTOR))
    assert answered == "h"
    assert np.array_equal(update, VECTOR)


def with_extra(content: RecordDict, name: str, record: object) -> RecordDict:
    return RecordDict({**content, name: record})


@pytest.mark.parametrize("record", [MetricRecord({"loss": 1.0}), ConfigRecord({"x": 1}), ArrayRecord()])
def test_a_record_that_the_protocol_does_not_know_is_refused(record: object) -> None:
    for content, unpack in (
        (wire.pack_ready("h"), wire.unpack_ready),
        (wire.pack_ask("h"), wire.unpack_ask),
        (wire.pack_contribution("h", VECTOR), wire.unpack_contribution),
        (wire.pack_train(PLAN, VECTOR), wire.unpack_train),
    ):
        with pytest.raises(CorruptMessage):
            unpack(with_extra(content, "extra", record))


def contribution(array: np.ndarray) -> RecordDict:
    return RecordDict({
        "receipt": ConfigRecord({"plan_hash": "h"}),
        "contribution": ArrayRecord({"update": Array(array)}),
    })  # fmt: skip


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.float32), np.zeros(3, np.float64), np.zeros(3, np.int64),
        np.array([np.nan, 0], np.float32), np.array([np.inf], np.float32),
    ],
)  # fmt: skip
def test_an_update_is_one_finite_float32_vector(array: np.ndarray) -> None:
    with pytest.raises(CorruptMessage, match="finite float32 vector"):
        wire.unpack_contribution(contribution(array))


def test_pickled_arrays_are_not_read() -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    array = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue())
    with pytest.raises(CorruptMessage):
        wire.unpack_contribution(
            RecordDict(
                {
                    "receipt": ConfigRecord({"plan_hash": "h"}),
                    "contribution": ArrayRecord({"update": array}),
                }
            )
        )


def test_a_refusal_is_a_name_and_a_sentence() -> None:
    content = wire.pack_refusal(StalePlan("round 1 is over; " + "x" * 1000))
    assert len(content.config_records["refusal"]["reason"]) <= wire.REFUSAL_LIMIT
    with pytest.raises(NodeFailed, match="Alto declined with StalePlan: round 1 is over"):
        wire.raise_refusal(content, "Alto")
