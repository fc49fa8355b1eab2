"""A label fits an adapter to its own vault: what `partbook node adapt` does, without its screen.

No network, no roster, no ledger: nothing leaves, so nothing is spent. The best epoch so far is sealed in the vault as
soon as it is known (`OwnAdapter`), so whatever ends the training costs no more than the epochs since then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from torch import Tensor

from partbook.errors import AlteredFile, ConfigError, InputError, ValueOutOfRange
from partbook.model.adapter import adapter_state, apply_adapter, attach, load_adapter, state_hash
from partbook.model.checkpoint import BASE, base_manifest, load_model, load_tokenizer
from partbook.model.transformer import PartbookModel
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.node.holding import only_one
from partbook.node.own_adapter import Note, OwnAdapter
from partbook.node.shared_model import SharedModel
from partbook.provenance.signing import open_signed
from partbook.training.adaptation import Adaptation, Epoch, Fitting, hold_out
from partbook.training.devices import devices_of, take_share
from partbook.training.examples import Examples
from partbook.vault.store import Vault

_RELEASED: Final = "adapter.safetensors"  # in a release's folder
_WEIGHTS: Final = "model.safetensors"
_SHARED: Final = {"adapter", "velocity", "second"}  # arrays of the model that a label holds in sealed rounds


@dataclass(frozen=True, slots=True)
class Source:
    """What an adapter is fitted to, and from where.

    Attributes:
        vault: folder of the vault.
        key: its key file; inside the vault where None.
        base: folder of the base model.
        start: adapter to begin from: a run's or an exported file, a release's folder, or the label's own
            `model.safetensors` of sealed rounds. The base model alone where None.
        style: style number of the windows; see `Examples`.
    """

    vault: Path
    key: Path | None = None
    base: Path = BASE
    start: Path | None = None
    style: int | None = None


@dataclass(frozen=True, slots=True)
class Adapted:
    """What came of it. Private: it is for the label's own eyes.

    Attributes:
        epochs: that came to an end.
        best: number of the epoch that is kept; 0 where none was better than where it began, and nothing is kept.
        before, after: nats a token of the recordings held out, at the beginning and after the best epoch.
        trained, held_out: how many recordings.
        ended: "patience", "epochs", "diverged" or "interrupted".
        kept: the sealed file; None where nothing was kept.
    """

    epochs: int
    best: int
    before: float
    after: float
    trained: int
    held_out: int
    ended: str
    kept: Path | None


def adapt(
    source: Source,
    fitting: Fitting,
    *,
    gpu_share: float = 1.0,
    devices: Sequence[str] | None = None,
    on_begin: Callable[[Adaptation], None] = lambda _: None,
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Adapted:
    """Fit an adapter to a vault's recordings, and seal the best one in the vault.

    Ctrl-C ends it as the last epoch would have, with `ended` "interrupted".

    Args:
        source: what to fit, and to what.
        fitting: how long and how fast.
        gpu_share: of the accelerator's memory, at most; 0 keeps off it.
        devices: the first of these is trained on; see `devices_of`.
        on_begin: told once that everything is loaded and the beginning is measured.
        on_step: told of each optimiser step.
        on_epoch: told each epoch, once the best one is kept.

    Raises:
        InputError: the vault is empty, or holds too few recordings with notes.
        ConfigError: the base model or the adapter to begin from does not fit, or a device cannot be used.
        VaultError, AlteredFile, BadSignature: vault, base model or adapter cannot be opened; or the disk is full.
        WithdrawnRecording: a recording was taken out of the vault meanwhile.
        AlreadyRunning: another process fits an adapter to this vault.
        ValueOutOfRange: training came to something that is no number before any epoch was better.
    """
    own = OwnAdapter(source.vault, source.key)
    device = devices_of(devices, gpu_share)[0]
    with only_one(own.folder):
        model, tokenizer, base_hash = _base(source)
        like = adapter_state(model)
        start = like if source.start is None else _begin(source.start, model, like, base_hash)
        own.must_have_room(start)
        recordings = _recordings(source)
        take_share(device, gpu_share)
        model.to(device)
        names = list(recordings)
        trained, held = hold_out(len(names), fitting.share, fitting.seed)
        adaptation = Adaptation(
            model,
            start,
            Examples([recordings[names[i]] for i in trained], tokenizer, model.config.context, style=source.style),
            [recordings[names[i]] for i in held],
            tokenizer,
            fitting,
        )
        on_begin(adaptation)
        began = "base" if source.start is None else state_hash(start)
        kept = 0

        def keep(epoch: Epoch) -> None:
            note = Note(base_hash, began, epoch.number, adaptation.start.held_out, epoch.held_out, tuple(names))
            own.keep(epoch.adapter, note)

        try:
            for epoch in adaptation.epochs(on_step):
                if adaptation.best is epoch:
                    keep(epoch)
                    kept = epoch.number
                on_epoch(epoch)
            ended = adaptation.ended
        except KeyboardInterrupt:
            ended = "interrupted"
            if adaptation.best.number > kept:
                keep(adaptation.best)
    best = adaptation.best
    if ended == "diverged" and not best.number:
        raise ValueOutOfRange(
            f"Training came to something that is no number in epoch {adaptation.ran}; nothing was kept of it. Lower "
            f"the rate: {fitting.rate / 10:g} instead of {fitting.rate:g}."
        )
    return Adapted(
        epochs=adaptation.ran,
        best=best.number,
        before=adaptation.start.held_out,
        after=best.held_out,
        trained=len(trained),
        held_out=len(held),
        ended=ended,
        kept=own.path if best.number else None,
    )


def _base(source: Source) -> tuple[PartbookModel, Tokenizer, str]:
    """The base model with fresh adapters, its tokeniser, and the SHA-256 of its weights."""
    base_hash: str = base_manifest(source.base)["files"][_WEIGHTS]
    model, tokenizer = attach(load_model(source.base)), load_tokenizer(source.base)
    if len(tokenizer) != model.config.vocabulary:
        raise ConfigError(
            f"The tokeniser of the base model in {source.base} has {len(tokenizer)} tokens, and its model "
            f"{model.config.vocabulary}; take both from one source."
        )
    with Vault.open(source.vault, source.key) as vault:
        bound = vault.tokenizer_sha256
    found = hashlib.sha256((source.base / "tokenizer.json").read_bytes()).hexdigest()
    if bound is not None and bound != found:
        raise ConfigError(
            f"The vault {source.vault} was written with tokeniser {bound[:12]}…, and the base model in {source.base} "
            f"has {found[:12]}…; name the base model that the vault was ingested for, or ingest into a new vault."
        )
    return model, tokenizer, base_hash


def _begin(path: Path, model: PartbookModel, like: Mapping[str, Tensor], base_hash: str) -> Mapping[str, Tensor]:
    """The adapter at `path`, which is known to fit the model."""
    try:
        state = _released(path, base_hash) if path.is_dir() else _single(path, like)
        apply_adapter(model, state)
    except ConfigError as error:
        raise ConfigError(
            f"{path} cannot be begun from: {error} Name an adapter of this base model, or the base model it is of."
        ) from error
    return state


def _single(path: Path, like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise AlteredFile(
            f"{path} is not an adapter ({error}); name a run's adapter.safetensors, a release's folder, or the "
            "model.safetensors that the node keeps in sealed rounds."
        ) from error
    return SharedModel.load(path, dict(like)).state if names == _SHARED else load_adapter(path)


def _released(folder: Path, base_hash: str) -> Mapping[str, Tensor]:
    manifest, _ = open_signed(folder, signer=None)
    for name in (_RELEASED, _WEIGHTS):
        if name not in manifest.files:
            raise ConfigError(f"{folder} is signed, but is not a release: {name} is missing.")
    if manifest.files[_WEIGHTS].sha256 != base_hash:
        raise ConfigError(
            f"The release is of the base model {manifest.files[_WEIGHTS].sha256[:12]}…, and this is {base_hash[:12]}…."
        )
    try:
        return load_tensors(manifest.read(folder, _RELEASED))
    except SafetensorError as error:
        raise AlteredFile(f"{folder / _RELEASED} is not safetensors ({error}); ask its maker.") from error


def _recordings(source: Source) -> dict[str, Recording]:
    """The vault's recordings in which notes were heard, by id, in the order they came in."""
    with Vault.open(source.vault, source.key) as vault:
        found = {identifier: vault.get(identifier) for identifier in vault.ids()}
    if not found:
        raise InputError(f"The vault {source.vault} holds no recording; run `partbook node ingest` first.")
    return {identifier: recording for identifier, recording in found.items() if len(recording.ids)}
