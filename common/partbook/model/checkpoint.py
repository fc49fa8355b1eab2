"""Base models on disk: config.json, model.safetensors, tokenizer.json and a manifest of their hashes.

Weights are kept as float16 (half the size; they are read back as float32), so the shipped base stays small enough
to live in the repository.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from partbook.errors import AlteredFile
from partbook.model.config import ModelConfig
from partbook.model.transformer import PartbookModel
from partbook.music.tokens import Tokenizer

BASE: Final = Path(__file__).parent / "base"
"""The base model that ships with Partbook, trained on public-domain scores only."""

FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")


def save_base(folder: Path, model: PartbookModel, tokenizer: Tokenizer, about: Mapping[str, Any]) -> str:
    """Write a base model; returns the SHA-256 of its weights file.

    Args:
        folder: made if missing; files of the same names are replaced.
        model: without adapters.
        tokenizer: the one it was trained with.
        about: sources, command and figures, for the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(model.config.to_json())
    half = {name: _in(torch.float16, tensor).contiguous() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save_tensors(half))
    tokenizer.save(folder / "tokenizer.json")
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    manifest = {"files": hashes, "about": dict(about)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return hashes["model.safetensors"]


def _in(precision: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(precision) if tensor.is_floating_point() else tensor  # the clock's tables are whole numbers


def base_manifest(folder: Path = BASE) -> dict[str, Any]:
    """The manifest of a base model, after checking every file against it.

    Raises:
        AlteredFile: a file is missing or differs; the message names it.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        expected: dict[str, str] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlteredFile(f"{folder}/manifest.json cannot be read ({error}); restore the base model.") from error
    for name in FILES:
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise AlteredFile(f"{folder / name} cannot be read ({error}); restore the base model.") from error
        if found != expected.get(name):
            raise AlteredFile(f"{folder / name} is not the file its manifest names; restore the base model.")
    return manifest


def model_from_bytes(config: str, weights: bytes) -> PartbookModel:
    """A model, in evaluation mode, from the text of config.json and the bytes of model.safetensors.

    Raises:
        ConfigError: the configuration is broken.
        AlteredFile: the weights are not safetensors or do not fit the configuration.
    """
    model = PartbookModel(ModelConfig.from_json(config))
    try:
        state = {name: _in(torch.float32, tensor) for name, tensor in load_tensors(weights).items()}
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise AlteredFile(f"The weights do not fit config.json ({error}); restore both from one source.") from error
    return model.eval()


def load_model(folder: Path = BASE) -> PartbookModel:
    """The base model in `folder`, in evaluation mode.

    Raises:
        AlteredFile: a file is missing or not the one its manifest names.
    """
    base_manifest(folder)
    return model_from_bytes((folder / "config.json").read_text(), (folder / "model.safetensors").read_bytes())


def load_tokenizer(folder: Path = BASE) -> Tokenizer:
    """The tokeniser of the base model in `folder`."""
    return Tokenizer.load(folder / "tokenizer.json")
