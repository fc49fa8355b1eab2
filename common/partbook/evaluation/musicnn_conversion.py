"""musicnn's published weights → one small safetensors file: `python -m partbook.evaluation.musicnn_conversion WHEEL`.

The wheel of musicnn 0.1.0 (ISC licence) holds TensorFlow checkpoints, three quarters of which are the optimiser's
slots. A checkpoint's `.index` is a LevelDB table (https://github.com/google/leveldb, doc/table_format.md) whose values
are `BundleEntryProto` messages (tensorflow/core/protobuf/tensor_bundle.proto), its `.data` the raw tensors; both are
read here without TensorFlow. Kernels are kept as float16. A batch normalisation is kept as what it does once
training is over, a scale and a shift, in float32.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AlteredFile, InputError

WHEEL_SHA256: Final = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"  # musicnn-0.1.0-py3-none-any
WEIGHTS: Final = Path(__file__).parent / "musicnn" / "mtt.safetensors"
_MODEL: Final = "musicnn/MTT_musicnn/"
_LICENCE: Final = "musicnn-0.1.0.dist-info/LICENSE.md"
_MAGIC: Final = bytes.fromhex("57fb808b247547db")
_FLOAT32: Final = 1  # DataType.DT_FLOAT
_EPSILON: Final = 1e-3  # tf.layers.batch_normalization's

Array = NDArray[np.float32]


def read_checkpoint(index: bytes, data: bytes) -> dict[str, Array]:
    """The float32 tensors of a TensorFlow checkpoint of one shard, by name, the optimiser's left out.

    Raises:
        AlteredFile: it is no such checkpoint, or ends early.
    """
    if index[-8:] != _MAGIC:
        raise AlteredFile("The checkpoint's index does not end as a LevelDB table does; take the wheel anew.")
    _, at = _handle(index, len(index) - 48)
    blocks, _ = _handle(index, at)
    tensors: dict[str, Array] = {}
    for _, where in _entries(index, *blocks):
        for key, value in _entries(index, *_handle(where, 0)[0]):
            name = key.decode()
            if not name or "Adam" in name or name.endswith("_power"):
                continue  # the header, and what only training needs
            numbers, messages = _fields(value)
            if numbers[1] != _FLOAT32:
                continue
            dims = _fields(messages.get(2, [b""])[0])[1].get(2, [])
            shape = [_fields(dim)[0][1] for dim in dims]
            begin, size = numbers.get(4, 0), numbers[5]
            if size != 4 * int(np.prod(shape)) or begin + size > len(data):
                raise AlteredFile(f"The checkpoint's data do not hold {name} whole; take the wheel anew.")
            tensors[name] = np.frombuffer(data, "<f4", size // 4, begin).reshape(shape)
    return tensors


def converted(tensors: dict[str, Array]) -> dict[str, NDArray[np.float16] | Array]:
    """The port's weights from the original's: names as in `musicnn`, kernels (out, in, …) as torch has them.

    The convolutions see one channel; a layer of the middle takes all its bands at once, which makes them channels.
    """
    kept: dict[str, NDArray[np.float16] | Array] = {}

    def layer(name: str, source: str, kernel: Array) -> None:
        kept[f"{name}.kernel"] = np.ascontiguousarray(kernel).astype(np.float16)
        kept[f"{name}.bias"] = tensors[f"{source}/bias"]

    def affine(name: str, number: int) -> None:
        source = "batch_normalization" + (f"_{number}" if number else "")
        gamma, beta, mean, variance = (
            tensors[f"{source}/{part}"].astype(np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + _EPSILON)
        kept[f"{name}.scale"] = scale.astype(np.float32)
        kept[f"{name}.shift"] = (beta - mean * scale).astype(np.float32)

    affine("input", 0)
    names = ["timbral.0", "timbral.1", "temporal.0", "temporal.1", "temporal.2", "middle.0", "middle.1", "middle.2"]
    for number, name in enumerate(names):
        source = "conv2d" + (f"_{number}" if number else "")
        kernel = tensors[f"{source}/kernel"]  # (time, bands, 1, out)
        middle = name.startswith("middle")
        layer(name, source, kernel[:, :, 0].transpose(2, 1, 0) if middle else kernel.transpose(3, 2, 0, 1))
        affine(name, number + 1)
    affine("pooled", 9)
    layer("penultimate", "dense", tensors["dense/kernel"].T)
    affine("penultimate", 10)
    layer("tags", "dense_1", tensors["dense_1/kernel"].T)
    return kept


def convert(wheel: Path, out: Path = WEIGHTS) -> None:
    """Write the weights, and the licence beside them.

    Raises:
        InputError: the wheel cannot be read.
        AlteredFile: it is not musicnn 0.1.0's.
    """
    from safetensors.numpy import save

    try:
        found = wheel.read_bytes()
    except OSError as error:
        raise InputError(f"{wheel} cannot be read ({error.strerror}); name the wheel of musicnn 0.1.0.") from error
    if hashlib.sha256(found).hexdigest() != WHEEL_SHA256:
        raise AlteredFile(f"{wheel} is not the wheel of musicnn 0.1.0: its SHA-256 is not {WHEEL_SHA256}.")
    with zipfile.ZipFile(wheel) as archive:
        index, data = (archive.read(_MODEL + name) for name in (".index", ".data-00000-of-00001"))
        licence = archive.read(_LICENCE)
    weights = converted(read_checkpoint(index, data))
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(out, save(weights, metadata={"source": f"musicnn 0.1.0, MTT_musicnn, {WHEEL_SHA256}"}))
    _write(out.parent / "LICENSE", licence)


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A protocol buffer's integer, seven bits a byte, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """A block's offset and size, and where the next thing begins."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _entries(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block, whose keys leave out what they share with the one before."""
    if table[offset + size]:
        raise AlteredFile("The checkpoint's index is compressed, which musicnn's is not; take the wheel anew.")
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")
    end, at, key = len(block) - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """A protocol buffer's fields by their numbers: the integers, and the strings and messages as often as they come."""
    numbers: dict[int, int] = {}
    strings: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        match tag & 7:
            case 0:
                numbers[tag >> 3], at = _varint(message, at)
            case 2:
                length, at = _varint(message, at)
                strings.setdefault(tag >> 3, []).append(message[at : at + length])
                at += length
            case 5:
                at += 4  # a checksum; the wheel's own has been checked
            case kind:
                raise AlteredFile(f"The checkpoint's index holds a field of kind {kind}; take the wheel anew.")
    return numbers, strings


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m partbook.evaluation.musicnn_conversion", description="Take musicnn's weights out of its wheel."
    )
    parser.add_argument("wheel", type=Path, help="musicnn-0.1.0-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="safetensors file to write; LICENSE goes beside it")
    asked = parser.parse_args(arguments)
    try:
        convert(asked.wheel, asked.out)
    except (InputError, AlteredFile) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
