import io
import json
import zipfile

import numpy as np
import pytest
from musicnn_oracle import VECTORS, signal
from safetensors.numpy import load_file

from partbook.errors import AlteredFile, AudioTooShort, InputError, UnreadableAudio
from partbook.evaluation import musicnn, musicnn_conversion
from partbook.evaluation.musicnn import FEATURES, SAMPLE_RATE, TAGS, Embedder

pytestmark = pytest.mark.timeout(300)  # torch and librosa are imported, on a busy machine for minutes

ANSWERS = json.loads(VECTORS.read_text())


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


def test_the_spectrogram_is_the_originals():
    mel = musicnn.log_mel(signal())
    assert mel.shape == (438, 96)
    assert mel.mean(0, dtype=np.float64) == pytest.approx(np.array(ANSWERS["mel_mean_of_each_band"]), abs=2e-5)


def test_tags_and_features_are_those_of_the_published_graph(embedder):
    """float16 weights are what is left of a difference: with float32 ones it is 5e-6 in tags, 2e-5 in features."""
    heard = embedder.embed(signal(), SAMPLE_RATE)
    assert len(heard) == 2
    assert np.abs(heard.tags - ANSWERS["tags"]).max() < 1e-3
    assert np.abs(heard.features - ANSWERS["features"]).max() < 5e-3
    assert heard.tags.shape == (2, len(TAGS))
    assert heard.features.shape == (2, FEATURES)


def test_it_hears_a_plucked_arpeggio(embedder):
    likely = np.argsort(-embedder.embed(signal(), SAMPLE_RATE).tags.mean(0))[:3]
    assert {TAGS[index] for index in likely} & {"guitar", "harp", "harpsichord", "piano"}


def test_it_hears_the_same_again_to_the_last_digit(embedder):
    first, second = embedder.embed(signal(), SAMPLE_RATE), Embedder().embed(signal(), SAMPLE_RATE)
    assert np.array_equal(first.features, second.features)
    assert np.array_equal(first.tags, second.tags)


def test_patches_are_heard_each_for_itself(embedder):
    patches = np.random.default_rng(3).random((12, 187, 96), dtype=np.float32) * 3
    whole = embedder.hear(patches)
    assert whole.features[11] == pytest.approx(embedder.hear(patches[11:]).features[0], abs=1e-4)


def test_another_rate_sounds_alike(embedder):
    import soxr

    louder_rate = soxr.resample(signal(), SAMPLE_RATE, 44_100)
    assert embedder.embed(louder_rate, 44_100).tags == pytest.approx(
        embedder.embed(signal(), SAMPLE_RATE).tags, abs=0.03
    )


def test_loud_sound_has_numbers_for_tags(embedder):
    """In the original, a sine at full scale overflows float16."""
    sine = np.sin(2 * np.pi * 440 * np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    heard = embedder.embed(sine, SAMPLE_RATE)
    assert np.isfinite(heard.tags).all()
    assert np.isfinite(heard.features).all()


def test_sound_of_less_than_a_patch_is_refused(embedder):
    with pytest.raises(AudioTooShort, match=r"2\.99 s"):
        embedder.embed(np.zeros(2 * SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE)
    with pytest.raises(AudioTooShort):
        embedder.embed(np.zeros(0, dtype=np.float32), SAMPLE_RATE)
    assert len(embedder.embed(np.zeros(3 * SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE)) == 1


def test_two_channels_and_samples_that_are_no_numbers_are_refused(embedder):
    with pytest.raises(UnreadableAudio, match="mono"):
        embedder.embed(np.zeros((48_000, 2), dtype=np.float32), SAMPLE_RATE)
    with pytest.raises(UnreadableAudio, match="finite"):
        embedder.embed(np.full(48_000, np.nan, dtype=np.float32), SAMPLE_RATE)


def test_there_are_fifty_tags_and_none_twice():
    assert len(TAGS) == len(set(TAGS)) == 50
    assert TAGS.index("piano") == 9


def test_only_the_published_wheel_is_converted(tmp_path):
    wheel = tmp_path / "musicnn.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("musicnn/MTT_musicnn/.index", b"")
    with pytest.raises(AlteredFile, match="SHA-256"):
        musicnn_conversion.convert(wheel, tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        musicnn_conversion.convert(tmp_path / "none.whl", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["musicnn.whl"]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def table(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB table of one block."""
    out = io.BytesIO()

    def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        begin, last = out.tell(), b""
        for key, value in pairs:
            shared = next(
                (i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last))
            )
            out.write(varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value)
            last = key
        out.write(bytes(4) + (1).to_bytes(4, "little"))
        handle = varint(begin) + varint(out.tell() - begin)
        out.write(bytes(5))
        return handle

    data, meta = block(entries), block([])
    out.write((meta + block([(b"z", data)])).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"))
    return out.getvalue()


def entry(offset: int, *shape: int) -> bytes:
    dims = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(size) for size in shape))
    size = 4 * int(np.prod(shape))
    place = (b"\x20" + varint(offset) if offset else b"") + b"\x28" + varint(size) + b"\x35" + bytes(4)
    return b"\x08\x01\x12" + varint(len(dims)) + dims + place


def test_a_checkpoint_is_read_without_what_only_training_needs():
    data = np.arange(300, dtype="<f4")
    index = table(
        [
            (b"", b"\x08\x01"),
            (b"dense/bias", entry(0, 3)),
            (b"dense/bias/Adam", entry(12, 3)),
            (b"dense/kernel", entry(800, 2, 50)),
        ]
    )
    tensors = musicnn_conversion.read_checkpoint(index, data.tobytes())
    assert list(tensors) == ["dense/bias", "dense/kernel"]
    assert np.array_equal(tensors["dense/bias"], [0, 1, 2])
    assert np.array_equal(tensors["dense/kernel"], data[200:].reshape(2, 50))


def test_a_checkpoint_that_was_cut_off_is_refused():
    index = table([(b"dense/kernel", entry(800, 2, 50))])
    with pytest.raises(AlteredFile, match="dense/kernel"):
        musicnn_conversion.read_checkpoint(index, bytes(1196))
    with pytest.raises(AlteredFile, match="LevelDB"):
        musicnn_conversion.read_checkpoint(index[:-1], bytes(1200))


def test_the_weights_are_small_and_keep_affine_parts_exact():
    weights = load_file(musicnn_conversion.WEIGHTS)
    assert musicnn_conversion.WEIGHTS.stat().st_size < 1_700_000
    assert all(
        tensor.dtype == (np.float16 if name.endswith("kernel") else np.float32) for name, tensor in weights.items()
    )
    assert "Permission to use" in (musicnn_conversion.WEIGHTS.parent / "LICENSE").read_text()
