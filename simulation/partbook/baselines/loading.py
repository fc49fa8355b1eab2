"""Any model by what a person calls it: `base`, a release's folder, a base model's, a baseline's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from partbook.baselines.kneser_ney import KneserNey
from partbook.baselines.lstm import LstmModel, LstmNetwork
from partbook.baselines.ngrams import KneserNeyModel
from partbook.baselines.training import (
    CONFIG,
    COUNTS,
    FORMAT,
    KINDS,
    MANIFEST,
    WEIGHTS,
    WORKS,
    network_of,
    tokenizer_hash,
)
from partbook.baselines.vae import VaeModel
from partbook.errors import AlteredFile, ConfigError
from partbook.evaluation.language_model import LanguageModel, Transformer
from partbook.evaluation.writing import AS_THE_PRODUCT
from partbook.generator.release import ABOUT, load_generator, open_release
from partbook.model.checkpoint import BASE, load_model, load_tokenizer
from partbook.model.sampling import Sampling

SHIPPED: Final = "base"


def load_language_model(called: str | Path, sampling: Sampling = AS_THE_PRODUCT) -> LanguageModel:
    """The model that `called` names: `base`, or the folder of a release, a base model or a baseline.

    A release is opened whoever signed it: what is measured here is music, not trust.

    Raises:
        ConfigError: there is no such folder, or it holds nothing of these, or another tokeniser.
        IntegrityError: a file in it is not the one its manifest names.
    """
    if str(called) == SHIPPED and not Path(called).is_dir():
        return Transformer(SHIPPED, load_model(), load_tokenizer(), sampling)
    folder = Path(called)
    if (folder / ABOUT).exists():
        opened = open_release(folder, signer=None)
        _same_tokenizer(hashlib.sha256(opened.files["tokenizer.json"]).hexdigest(), folder)
        generator = load_generator(opened)
        return Transformer(opened.name, generator.model, generator.tokenizer, sampling)
    manifest = _manifest(folder)
    if manifest.get("format") == FORMAT:
        return _baseline(folder, manifest, sampling)
    model = load_model(folder)
    _same_tokenizer(hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(), folder)
    return Transformer(folder.resolve().name, model, load_tokenizer(folder), sampling)


def learnt_from(called: str | Path) -> frozenset[str]:
    """Keys of the works that a baseline has learnt from; none for other models, which do not say.

    Raises:
        AlteredFile: the baseline's list is not the one its manifest names.
    """
    folder = Path(called)
    if not (folder / MANIFEST).exists() or _manifest(folder).get("format") != FORMAT:
        return frozenset()
    blob = _named_by(_manifest(folder), folder, WORKS)
    return frozenset(str(key) for key in json.loads(blob)["works"])


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{folder} is no model: it has no {MANIFEST}. Name `{SHIPPED}`, or the folder of a release, a base model "
            "or a baseline whose training is finished."
        ) from error
    except ValueError as error:
        raise AlteredFile(f"{folder / MANIFEST} is not JSON ({error}); make the model again.") from error
    if not isinstance(manifest, dict):
        raise AlteredFile(f"{folder / MANIFEST} is not a JSON object; make the model again.")
    return manifest


def _same_tokenizer(found: str, folder: Path) -> None:
    if found != tokenizer_hash():
        raise ConfigError(
            f"{folder} has another tokeniser than the shipped base ({BASE}): their nats a token say nothing about each "
            "other. Train it again with this version."
        )


def _named_by(manifest: dict[str, Any], folder: Path, name: str) -> bytes:
    """A file of a baseline, the one that was written."""
    try:
        blob = (folder / name).read_bytes()
    except OSError as error:
        raise AlteredFile(f"{folder / name} cannot be read ({error.strerror}); train the baseline again.") from error
    if hashlib.sha256(blob).hexdigest() != manifest["files"].get(name):
        raise AlteredFile(f"{folder / name} is not the file its manifest names; train the baseline again.")
    return blob


def _baseline(folder: Path, manifest: dict[str, Any], sampling: Sampling) -> LanguageModel:
    kind = manifest.get("kind")
    if kind not in KINDS or not isinstance(manifest.get("files"), dict):
        raise AlteredFile(f"{folder / MANIFEST} names no known baseline; train it again.")
    _same_tokenizer(str(manifest.get("tokenizer_sha256")), folder)
    names = (COUNTS,) if kind == "kneser-ney" else (CONFIG, WEIGHTS)
    blobs = {name: _named_by(manifest, folder, name) for name in names}
    tokenizer = load_tokenizer()
    if kind == "kneser-ney":
        return KneserNeyModel(KneserNey.load(folder / COUNTS), tokenizer, sampling)
    network = network_of(kind, json.loads(blobs[CONFIG]))
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_tensors(blobs[WEIGHTS]).items()})
    except (SafetensorError, RuntimeError) as error:
        raise AlteredFile(f"{folder / WEIGHTS} does not fit {CONFIG} ({error}); train the baseline again.") from error
    if isinstance(network, LstmNetwork):
        return LstmModel(network, tokenizer, sampling)
    return VaeModel(network, tokenizer, sampling)
