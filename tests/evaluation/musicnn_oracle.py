"""musicnn's own graph, run by TensorFlow: the known answers of tests/vectors/musicnn.json.

In an environment of its own, with tensorflow-cpu 2.21 and librosa 0.11 and without Partbook:
`python tests/evaluation/musicnn_oracle.py musicnn-0.1.0-py3-none-any.whl` writes the file anew.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

VECTORS = Path(__file__).parent.parent / "vectors" / "musicnn.json"
MODEL = "musicnn/MTT_musicnn/"
OUTPUTS = ("model/Sigmoid", "model/batch_normalization_10/batchnorm/add_1")
RATE = 16_000


def signal():
    """Seven seconds of a plucked arpeggio over a fifth that swells, at 16 kHz: one channel, float32."""
    time = np.arange(7 * RATE) / RATE
    sound = 0.03 * (time / 7) * (np.sin(2 * np.pi * 110 * time) + np.sin(2 * np.pi * 165 * time))
    for number, pitch in enumerate((261.63, 329.63, 392.0, 523.25, 392.0, 329.63, 293.66)):
        since = time - 0.9 * number
        decay = np.where(since >= 0, np.exp(-3 * np.maximum(since, 0)), 0)
        for overtone in range(1, 9):
            sound += 0.15 / overtone**1.5 * decay * np.sin(2 * np.pi * overtone * pitch * since)
    return sound.astype(np.float32)


def log_mel(samples):
    """As musicnn/extractor.py has it, but in float32, and mirrored at the edges."""
    import librosa

    power = librosa.feature.melspectrogram(
        y=samples, sr=RATE, hop_length=256, n_fft=512, n_mels=96, pad_mode="reflect"
    ).T
    return np.log10(10000 * power + 1).astype(np.float32)


def answers(wheel, patches):
    """Tags and penultimate features that the published graph gives, with the published weights."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(MODEL)])
        checkpoint = f"{folder}/{MODEL}"
        meta = tf.compat.v1.MetaGraphDef()
        meta.ParseFromString(Path(f"{checkpoint}.meta").read_bytes())
        for node in meta.graph_def.node:
            node.attr.pop("_output_shapes", None)  # those of the gradients contradict today's shape inference
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(
                tf.compat.v1.graph_util.extract_sub_graph(meta.graph_def, list(OUTPUTS)), name=""
            )
        reader = tf.compat.v1.train.NewCheckpointReader(checkpoint)
        feed = {"model/Placeholder:0": patches, "model/Placeholder_2:0": False}
        for name in reader.get_variable_to_shape_map():
            if "Adam" not in name and not name.endswith("_power"):
                feed[f"{name}/read:0"] = reader.get_tensor(name)
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run([f"{name}:0" for name in OUTPUTS], feed)


def main(wheel):
    mel = log_mel(signal())
    count = len(mel) // 187
    patches = mel[: count * 187].reshape(count, 187, 96)
    tags, features = answers(wheel, patches)
    vectors = {
        "comment": "musicnn 0.1.0, MTT_musicnn, on `signal` of tests/evaluation/musicnn_oracle.py",
        "mel_mean_of_each_band": np.round(mel.mean(0, dtype=np.float64), 5).tolist(),
        "tags": [[round(float(x), 6) for x in row] for row in tags],
        "features": [[round(float(x), 5) for x in row] for row in features],
    }
    VECTORS.write_text(json.dumps(vectors, separators=(",", ":")).replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
