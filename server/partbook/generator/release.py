"""A release: a trained generator as one signed folder, refused whole if one byte of it is not its maker's.

    config.json  model.safetensors  tokenizer.json    the public base model
    adapter.safetensors                               what the federation trained
    release.json                                      how, with which locks on, from which sources
    manifest.json  manifest.sig  signer.pem           hashes, and who vouches for them

The release id is the SHA-256 of manifest.json. Opening one verifies the signature before the manifest is
parsed and each file's hash before that file is; what was hashed is kept in memory and is what gets loaded.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from partbook.errors import AlteredFile, ConfigError, InputError
from partbook.identity.keys import IdentityKey, PublicIdentity
from partbook.provenance.signing import open_signed, sign_folder

if TYPE_CHECKING:
    from partbook.generator.composing import Generator
    from partbook.model.transformer import PartbookModel

BASE_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")
ADAPTER: Final = "adapter.safetensors"
ABOUT: Final = "release.json"
FILES: Final = (*BASE_FILES, ADAPTER, ABOUT)


@dataclass(frozen=True, slots=True)
class Release:
    """A verified release, in memory.

    Attributes:
        path: the folder it was read from.
        id: SHA-256 of its canonical manifest, 64 hex digits.
        signer: whose signature verified.
        about: release.json: format, name, created, training, locks, sources, base and adapter hashes.
        files: the bytes whose hashes were checked, by name.
    """

    path: Path
    id: str
    signer: PublicIdentity
    about: Mapping[str, Any]
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """What the release calls itself."""
        return str(self.about.get("name", "unnamed"))


def pack_release(
    base: Path, adapter: Path, out: Path, key: IdentityKey, about: Mapping[str, Any] | None = None
) -> Release:
    """Put base model, tokeniser and adapter together, check that they load as one, sign them.

    Args:
        base: folder of the base model, with its manifest.
        adapter: the trained adapter, safetensors.
        out: folder to make; it appears complete or not at all.
        key: who vouches for it.
        about: what to say about it, as JSON: `name`, `created` (else now, UTC), `training`, `locks` (masks,
            seal, noise: true or false), `sources` and anything else. `base` and `adapter` are filled in here.

    Raises:
        AlteredFile: the base model is not what its manifest says, or the adapter cannot be read.
        ConfigError: the adapter does not fit the base, `out` exists, or `about` is not JSON.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; a release is never overwritten: choose another folder.")
    files, base_about = _parts(base, adapter)
    description = {
        "name": out.name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **(about or {}),
        "format": "partbook/v1/release",
        "base": {"sha256": hashlib.sha256(files["model.safetensors"]).hexdigest(), "about": base_about},
        "adapter": {"sha256": hashlib.sha256(files[ADAPTER]).hexdigest()},
    }
    try:
        files[ABOUT] = (json.dumps(description, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"What is said about the release is not JSON ({error}).") from error
    _assemble(files, "")  # nothing is signed that would not load
    with _appearing_whole(out) as folder:
        for name in FILES:
            (folder / name).write_bytes(files[name])
        manifest = sign_folder(folder, FILES, key)
    return Release(out, manifest.digest, key.public, description, files)


def open_release(path: Path, *, signer: PublicIdentity | None) -> Release:
    """Verify a release and read it.

    Args:
        path: its folder.
        signer: the key it must be signed with. None trusts whichever key lies in the folder, so show
            `release.signer.fingerprint` to a person who can compare it.

    Raises:
        BadSignature: the signature does not verify, or is not the expected signer's.
        AlteredFile: a file is missing, differs from what was signed, or was not signed; the message names it.
    """
    manifest, found = open_signed(path, signer=signer)
    if set(manifest.files) != set(FILES):
        odd = sorted(set(manifest.files) ^ set(FILES))[0]
        raise AlteredFile(f"{path} is signed, but is not a release: {odd} is missing from it or does not belong.")
    files = {name: manifest.read(path, name) for name in FILES}
    try:
        about = json.loads(files[ABOUT])
    except ValueError as error:
        raise AlteredFile(f"{path / ABOUT} is signed, but is not JSON ({error}); ask its maker.") from error
    if not isinstance(about, dict):
        raise AlteredFile(f"{path / ABOUT} is signed, but is not a JSON object; ask its maker.")
    return Release(path, manifest.digest, found, about, files)


def load_generator(release: Release) -> Generator:
    """The generator in a release, on the accelerator if there is one.

    Raises:
        AlteredFile, ConfigError: its parts do not fit each other (only if its maker signed them so).
    """
    return _assemble(release.files, release.id)


def unreleased(base: Path, adapter: Path) -> Generator:
    """What a release of these would hold, to be looked at before anybody vouches for it; its id is `unreleased`.

    Raises:
        AlteredFile: the base model is not what its manifest says, or the adapter cannot be read.
        ConfigError: they do not fit each other.
    """
    return _assemble(_parts(base, adapter)[0], "unreleased")


def of_base(base: Path) -> Generator:
    """The base model alone, before any federation; its id is `base-` and the beginning of its weights' SHA-256.

    Raises:
        AlteredFile: the base model is not what its manifest says.
    """
    files, _ = _base_files(base)
    return _assemble(files, f"base-{hashlib.sha256(files['model.safetensors']).hexdigest()[:12]}")


def _assemble(files: Mapping[str, bytes], release_id: str) -> Generator:
    # Hundreds of milliseconds of imports that `partbook release verify` does not need.
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    from partbook.generator.composing import Generator
    from partbook.model.adapter import apply_adapter
    from partbook.model.checkpoint import model_from_bytes
    from partbook.model.transformer import pick_device

    model = model_from_bytes(files["config.json"].decode("utf-8"), files["model.safetensors"])
    if ADAPTER in files:
        try:
            state = load_tensors(files[ADAPTER])
        except SafetensorError as error:
            raise AlteredFile(f"{ADAPTER} is not safetensors ({error}); give the adapter a run has written.") from error
        apply_adapter(model, state)
    tokenizer = _tokenizer(files["tokenizer.json"])
    if len(tokenizer) != model.config.vocabulary:
        raise ConfigError(
            f"tokenizer.json has {len(tokenizer)} tokens, but config.json says {model.config.vocabulary}; "
            "take both from one base model."
        )
    _fold(model)
    return Generator(model.to(pick_device()).eval(), tokenizer, release_id)


def _fold(model: PartbookModel) -> None:
    """Add every adapter's scale · B·A to the weights it adapts: the same function in a third of the calls."""
    import torch

    from partbook.model.adapter import AdaptedLinear

    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, AdaptedLinear)}
    with torch.no_grad():
        for name, layer in adapted.items():
            layer.linear.weight += layer.scale * layer.b @ layer.a
            owner, _, child = name.rpartition(".")
            setattr(model.get_submodule(owner), child, layer.linear)


def _tokenizer(blob: bytes) -> Any:
    from partbook.music.tokens import Tokenizer

    # Ours alone (mode 0600), with the bytes that were verified.
    with tempfile.TemporaryDirectory(prefix="partbook-") as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(blob)
        return Tokenizer.load(path)


def _parts(base: Path, adapter: Path) -> tuple[dict[str, bytes], Any]:
    files, about = _base_files(base)
    try:
        files[ADAPTER] = adapter.read_bytes()
    except OSError as error:
        raise AlteredFile(
            f"The adapter {adapter} cannot be read: {error.strerror}. Give a run's adapter file."
        ) from error
    return files, about


def _base_files(base: Path) -> tuple[dict[str, bytes], Any]:
    from partbook.model.checkpoint import base_manifest

    manifest = base_manifest(base)
    files = {name: (base / name).read_bytes() for name in BASE_FILES}
    for name, blob in files.items():
        if hashlib.sha256(blob).hexdigest() != manifest["files"][name]:
            raise AlteredFile(f"{base / name} changed while it was being packed; pack again.")
    return files, manifest.get("about", {})


@contextlib.contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """A folder to fill, renamed to `out` when all went well and removed when not."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}; choose another folder.") from error
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's 0700 would keep the release from those it is for
        os.rename(folder, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}; choose another folder.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
