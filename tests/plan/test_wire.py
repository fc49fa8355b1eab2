import io

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import CorruptMessage, NodeFailed, PartbookError, StalePlan
from partbook.plan import wire


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=4), st.lists(st.binary(max_size=50), max_size=12))
def test_what_is_packed_is_unpacked(signed: list[bytes], blobs: list[bytes]) -> None:
    assert wire.unpack(wire.pack(signed, blobs), len(signed), len(blobs)) == (signed, blobs)
    assert wire.unpack(wire.pack(signed, blobs), None, None) == (signed, blobs)


@pytest.mark.parametrize(
    ("signed", "blobs"), [(1, 0), (2, 1), (3, 2), (2, 3), (None, 1), (2, None), (0, None), (None, 0)]
)
def test_a_wrong_number_of_either_is_refused(signed: int | None, blobs: int | None) -> None:
    content = wire.pack([b"one", b"two"], [b"a", b"b"])
    if (signed, blobs) == (2, None):
        assert wire.unpack(content, signed, blobs)
        return
    with pytest.raises(CorruptMessage):
        wire.unpack(content, signed, blobs)


@pytest.mark.parametrize("record", [MetricRecord({"loss": 1.0}), ConfigRecord({"x": 1}), ArrayRecord()])
def test_a_record_that_the_protocol_does_not_know_is_refused(record: object) -> None:
    for content in (wire.pack([b"x"]), wire.pack([b"x"], [b"y"])):
        with pytest.raises(CorruptMessage, match="extra"):
            wire.unpack(RecordDict({**content, "extra": record}), None, None)


@pytest.mark.parametrize(
    "record",
    [
        ConfigRecord({}), ConfigRecord({"messages": []}), ConfigRecord({"messages": ["text"]}),
        ConfigRecord({"messages": [1]}), ConfigRecord({"messages": b"x"}),
        ConfigRecord({"messages": [b"x"], "loss": 0.5}), ConfigRecord({"message": [b"x"]}),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_signed_is_a_list_of_bytes_and_nothing_beside_it(record: ConfigRecord) -> None:
    with pytest.raises(CorruptMessage):
        wire.unpack(RecordDict({"signed": record}), None, None)
    with pytest.raises(CorruptMessage):
        wire.unpack(RecordDict(), None, None)


def with_blobs(**arrays: Array) -> RecordDict:
    content = wire.pack([b"x"])
    content["blobs"] = ArrayRecord(arrays)
    return content


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.uint8), np.zeros(3, np.float32), np.zeros(3, np.int8), np.zeros((), np.uint8)]
)
def test_a_blob_is_plain_bytes(array: np.ndarray) -> None:
    with pytest.raises(CorruptMessage, match="plain bytes"):
        wire.unpack(with_blobs(**{"0": Array(array)}), None, None)


def test_blobs_are_numbered_from_zero() -> None:
    array = Array(np.zeros(3, np.uint8))
    for names in (("1",), ("0", "2"), ("update",), ("0", "loss")):
        with pytest.raises(CorruptMessage, match="numbered"):
            wire.unpack(with_blobs(**dict.fromkeys(names, array)), None, None)


def test_pickled_arrays_are_not_read() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    array = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue())
    with pytest.raises(CorruptMessage, match="cannot be read"):
        wire.unpack(with_blobs(**{"0": array}), None, None)


@pytest.mark.parametrize("stype", ["numpy.ndarray", "torch.Tensor", ""])
@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1'}"]
)
def test_a_broken_array_is_refused(data: bytes, stype: str) -> None:
    array = Array(dtype="uint8", shape=(3,), stype=stype, data=data)
    with pytest.raises(CorruptMessage):
        wire.unpack(with_blobs(**{"0": array}), None, None)


def test_a_refusal_is_a_name_and_a_sentence() -> None:
    content = wire.pack_refusal(StalePlan("round 1 is over; " + "x" * 1000))
    assert len(content.config_records["refusal"]["reason"]) <= wire.REFUSAL_LIMIT
    with pytest.raises(NodeFailed, match="Alto declined with StalePlan: round 1 is over"):
        wire.raise_refusal(content, "Alto")
    wire.raise_refusal(wire.pack([b"x"]), "Alto")


@given(st.dictionaries(st.sampled_from(["error", "reason", "x"]), st.text(max_size=2000) | st.integers(0, 9)))
def test_a_refusal_of_any_form_is_a_short_error(fields: dict) -> None:
    with pytest.raises(PartbookError) as caught:
        wire.raise_refusal(RecordDict({"refusal": ConfigRecord(fields)}), "Alto")
    assert len(str(caught.value)) < wire.REFUSAL_LIMIT + 200


def test_every_kind_of_message_is_listed_once_in_the_order_of_a_round() -> None:
    names = [value for name, value in vars(wire).items() if name.isupper() and isinstance(value, str)]
    assert sorted(names) == sorted(wire.KINDS)
    assert len(set(wire.KINDS)) == len(wire.KINDS)
    assert wire.KINDS.index(wire.TRAIN) < wire.KINDS.index(wire.CONTRIBUTE) < wire.KINDS.index(wire.REVEAL)
