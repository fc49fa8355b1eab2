"""What a network trained to tag music hears in a sound: features for Fréchet distances, tags for inception scores.

A port of musicnn's model for MagnaTagATune (`MTT_musicnn` of musicnn 0.1.0, ISC licence; Pons & Serra 2019, "musicnn:
pre-trained convolutional neural networks for music audio tagging", ISMIR late-breaking; Pons et al. 2018, "End-to-end
learning for music audio tagging at scale"): 0.8M parameters, kept as float16, computed in float32. Of the two
models in that package this one has tags that name what can be heard, given by listeners to 25,863 clips (Law et al.
2009, "Evaluation of algorithms using games: the case of music tagging") and half of them instruments and voices; and
its figures on the test set are published (ROC-AUC .907, PR-AUC .383). The other's are what listeners of Last.fm wrote
about whole songs: `00s`, `sexy`, `catchy`.

The front end is the original's: 96 mel bands of 16 kHz (Slaney's, area 1, power, frames of 512 samples every 256),
log10(10,000·x + 1), patches of 187 frames (2.99 s) one after the other; what is left at the end is not heard. It
differs in two ways. The original rounds the mel bands to float16, in which 10,000·x is infinite from x = 6.55 on (a
sine at -19 dBFS) and every tag of that patch not a number; here they stay float32. And the first and last frame mirror
the sound at its edge, as librosa 0.7 did when the model was trained, and no longer does by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AudioTooShort, UnreadableAudio
from partbook.evaluation.musicnn_conversion import WEIGHTS
from partbook.threads import one_thread_within

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE: Final = 16_000  # Hz
N_FFT: Final = 512  # samples
HOP: Final = 256  # samples
BANDS: Final = 96
PATCH_FRAMES: Final = 187
PATCH_SECONDS: Final = PATCH_FRAMES * HOP / SAMPLE_RATE  # 2.992
FEATURES: Final = 200
_BATCH: Final = 10  # patches; half a minute of sound takes 90 MB in the widest layer

# Of musicnn/configuration.py, MTT_LABELS; in the order of the network's outputs. Synonyms are the listeners'.
TAGS: Final[tuple[str, ...]] = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano"),
    *("ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing"),
    *("vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop"),
    *("soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice"),
    *("female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice", "choral"),
)


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was heard, one row for each 2.99 s of sound.

    Attributes:
        features: activations of the penultimate layer, after its normalisation, float32 (patches, 200).
        tags: how likely each of `TAGS` applies, each for itself, 0 to 1, float32 (patches, 50).
    """

    features: NDArray[np.float32]
    tags: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """musicnn's spectrogram of mono sound at 16 kHz: (1 + samples // 256, 96), 0 for silence."""
    import librosa

    power: NDArray[np.float32] = librosa.feature.melspectrogram(
        y=samples, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, pad_mode="reflect"
    )
    scaled: NDArray[np.float32] = np.log10(np.float32(10_000) * power.T + np.float32(1))
    return scaled


class Embedder:
    """The network, with its weights loaded. It computes with one thread: the same to the last digit everywhere."""

    def __init__(self) -> None:
        from safetensors.torch import load_file

        self._weights = {name: tensor.float() for name, tensor in load_file(WEIGHTS).items()}

    def embed(self, samples: NDArray[np.float32], sample_rate: int) -> Embedded:
        """Listen to mono sound.

        Args:
            samples: full scale 1, (n,). Bring clips to one loudness first (`music.decode.normalised_mono`): the
                network hears level.
            sample_rate: Hz; anything but 16,000 is resampled (soxr, high quality).

        Raises:
            AudioTooShort: it does not last for one patch of 2.98 s.
            UnreadableAudio: more than one channel, or samples that are not numbers.
        """
        import soxr

        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise UnreadableAudio(
                f"The network hears finite samples of one channel, (n,); these are {samples.shape}; mix to mono first."
            )
        mono = np.ascontiguousarray(samples, dtype=np.float32)
        if sample_rate != SAMPLE_RATE:
            mono = soxr.resample(mono, sample_rate, SAMPLE_RATE, quality="HQ")
        count = (1 + len(mono) // HOP) // PATCH_FRAMES
        if not count:
            raise AudioTooShort(
                f"The network hears patches of {PATCH_SECONDS:.2f} s, and this lasts "
                f"{len(mono) / SAMPLE_RATE:.2f} s; leave it out, or take a longer one."
            )
        return self.hear(log_mel(mono)[: count * PATCH_FRAMES].reshape(count, PATCH_FRAMES, BANDS))

    def hear(self, patches: NDArray[np.float32]) -> Embedded:
        """What the network makes of patches of `log_mel`, (patches, 187, 96)."""
        import torch

        batches = [torch.from_numpy(patches[i : i + _BATCH]) for i in range(0, len(patches), _BATCH)]
        with one_thread_within(), torch.inference_mode():
            features, tags = zip(*map(self._forward, batches), strict=True)
        return Embedded(torch.cat(features).numpy(), torch.cat(tags).numpy())

    def _forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Penultimate activations (batch, 200) and tags (batch, 50) of patches (batch, time, bands)."""
        import torch
        from torch.nn import functional as F

        weights = self._weights

        def affine(name: str, x: Tensor) -> Tensor:
            return x * weights[f"{name}.scale"][:, None] + weights[f"{name}.shift"][:, None]

        def loudest(name: str, x: Tensor) -> Tensor:
            """Convolution, ReLU and normalisation, then the greatest over all bands: (batch, filters, time)."""
            y = F.conv2d(x, weights[f"{name}.kernel"], weights[f"{name}.bias"])  # (batch, filters, time, bands)
            # ReLU and normalisation are monotonous, rising or falling, so they can wait until the bands are one.
            extreme = torch.where(weights[f"{name}.scale"][:, None] > 0, y.amax(3), y.amin(3))
            return affine(name, F.relu(extreme))

        def middle(name: str, x: Tensor) -> Tensor:
            return affine(name, F.relu(F.conv1d(x, weights[f"{name}.kernel"], weights[f"{name}.bias"], padding=3)))

        x = mel[:, None] * weights["input.scale"] + weights["input.shift"]  # (batch, 1, time, bands)
        front = [loudest(f"timbral.{i}", F.pad(x, (0, 0, 3, 3))) for i in range(2)]
        for i, length in enumerate((128, 64, 32)):  # frames: 2, 1 and half a second
            front.append(loudest(f"temporal.{i}", F.pad(x, (0, 0, (length - 1) // 2, length // 2))))
        layers = [torch.cat(front, dim=1)]  # (batch, 561, time)
        layers.append(middle("middle.0", layers[0]))
        layers.append(middle("middle.1", layers[1]) + layers[1])
        layers.append(middle("middle.2", layers[2]) + layers[2])
        dense = torch.cat(layers, dim=1)  # (batch, 753, time)
        pooled = torch.stack([dense.amax(2), dense.mean(2)], dim=2).flatten(
            1
        )  # (batch, 1506), maximum and mean in turn
        pooled = pooled * weights["pooled.scale"] + weights["pooled.shift"]
        hidden = F.relu(F.linear(pooled, weights["penultimate.kernel"], weights["penultimate.bias"]))
        features = hidden * weights["penultimate.scale"] + weights["penultimate.shift"]
        return features, torch.sigmoid(F.linear(features, weights["tags.kernel"], weights["tags.bias"]))
