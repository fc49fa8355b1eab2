"""From a state folder to a signed release: the adapter, what it was trained with, and what that cost in privacy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from partbook.coordinator.checkpoints import Checkpoints, RoundRecord
from partbook.coordinator.home import Home
from partbook.coordinator.privacy import PrivacyStatement, statement
from partbook.coordinator.validation import ValidationSet
from partbook.errors import ConfigError
from partbook.evaluation.brief import PIECES, Brief, as_heard, brief, freely
from partbook.generator.release import Release, pack_release, unreleased
from partbook.identity.keys import IdentityKey
from partbook.identity.passphrase import passphrase_of
from partbook.model.adapter import load_adapter, state_hash
from partbook.model.checkpoint import BASE, base_manifest
from partbook.plan.rounds import Mode
from partbook.threads import one_thread_within


def release(
    home: Home,
    out: Path,
    *,
    delta: float,
    name: str | None = None,
    sources: Sequence[str] = (),
    pieces: int = PIECES,
    on_step: Callable[[str], None] = lambda _: None,
) -> Release:
    """Pack and sign the model after the newest round.

    Args:
        home: whose.
        out: folder to make.
        delta: δ at which ε is stated.
        name: what the release calls itself; the federation's name where not given.
        sources: what was trained on, in words.
        pieces: that the model writes to be held against the public validation recordings (`partbook.evaluation.brief`);
            none, or no validation recordings, leaves that out.
        on_step: told what is done of that.

    Raises:
        ConfigError: no round is finished, the labels have not handed the newest model over, `out` exists, δ is none, or
            the validation recordings are missing.
        GenerationError: the model writes silence; 0 `pieces` releases it all the same.
        AlteredFile: a checkpoint or the base model is not what it should be.
    """
    config, roster = home.federation, home.roster()
    base = config.base or BASE
    key = IdentityKey.load(config.key, passphrase_of(config.key))
    if key.public != roster.coordinator:
        raise ConfigError(f"key: {config.key} is not the coordinator's key in the roster {config.roster}.")
    checkpoints = Checkpoints(config.state, roster.federation, base_manifest(base)["files"]["model.safetensors"])
    state = checkpoints.load()
    if state is None or state.round == 0:
        raise ConfigError(f"{config.state} holds no finished round; `partbook coordinator run` runs them.")
    adapter = config.state / "adapter.safetensors"
    last = state.history[-1]
    # In sealed rounds the coordinator learns the model when the labels hand it over, and has an older one until then.
    if state_hash(load_adapter(adapter)) != last.adapter_hash:
        raise ConfigError(
            f"{adapter} is not the model after round {last.round}, which the labels have not handed over yet; "
            "`partbook coordinator run` asks them for it when all rounds are done."
        )
    about = {
        "name": name or roster.federation,
        **summary(
            [member.name for member in roster.members],
            state.history,
            config.mode,
            statement(state.history, checkpoints.lost(), delta),
        ),
        "federation": {"name": roster.federation, "roster": roster.hash},
        "sources": list(sources),
    }
    if out.exists():  # said before pieces are written, which takes a minute
        raise ConfigError(f"{out} exists already; a release is never overwritten: choose another folder.")
    if pieces and config.validation:
        about["music"] = _music(base, adapter, config.validation, pieces, on_step).about()
    return pack_release(base, adapter, out, key, about)


def _music(base: Path, adapter: Path, validation: Path, pieces: int, on_step: Callable[[str], None]) -> Brief:
    from partbook.evaluation.language_model import Transformer

    made = unreleased(base, adapter)
    held = [one for many in ValidationSet.read(validation).by_label.values() for one in many]
    human = as_heard(held, made.tokenizer)
    model = Transformer("The release", made.model, made.tokenizer)
    with one_thread_within():
        written = freely(model, pieces, on_piece=lambda count: on_step(f"piece {count}"))
    reference = "the public validation recordings, as a node hears them"
    return brief([("The release", "generator", written)], human, reference=reference, on_step=on_step)


def summary(
    labels: Sequence[str], history: Sequence[RoundRecord], mode: Mode, privacy: PrivacyStatement
) -> dict[str, Any]:
    """What `release.json` says of the training: labels, rounds, losses on public recordings, locks, privacy."""
    training: dict[str, Any] = {"labels": list(labels), "rounds": history[-1].round}
    first, last = history[0].validation, history[-1].validation
    if last:
        training["heldout_nats_per_token"] = {
            label: {"base": first[label], "after": last[label]} for label in sorted(last) if label in first
        }
    return {
        "training": training,
        "locks": {"masks": True, "seal": mode == "sealed", "noise": privacy.bounded},
        "privacy": privacy.about(),
    }
