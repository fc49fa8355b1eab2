from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tunes import recording_of, tune

from partbook.errors import ConfigError, InputError
from partbook.model.adapter import adapter_state, apply_adapter, attach, flatten
from partbook.model.checkpoint import load_model
from partbook.model.likelihood import evaluate
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.training.adaptation import FEWEST, Adaptation, Epoch, Fitting, hold_out
from partbook.training.examples import Examples

FITTING = Fitting(epochs=4, patience=4, rate=5e-2, batch=4)


@pytest.fixture(scope="module")
def others(tiny_tokenizer: Tokenizer) -> list[Recording]:
    """Recordings of the same tunes, which sound otherwise."""
    return [recording_of(tune(index), tiny_tokenizer, 10 + index) for index in range(2)]


@pytest.fixture
def begin(tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording], others: list[Recording]):
    """An adaptation that has not gone a step."""

    def made(fitting: Fitting) -> Adaptation:
        model = attach(load_model(tiny_base))
        trained = Examples(recordings, tiny_tokenizer, model.config.context)
        return Adaptation(model, adapter_state(model), trained, others, tiny_tokenizer, fitting)

    return made


def test_recordings_that_were_held_out_become_likelier(
    begin, tiny_base: Path, tiny_tokenizer: Tokenizer, others: list[Recording]
) -> None:
    steps: list[None] = []
    adaptation = begin(FITTING)
    epochs = list(adaptation.epochs(lambda: steps.append(None)))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert (adaptation.ran, adaptation.ended, len(steps)) == (4, "epochs", 4 * adaptation.steps)
    assert adaptation.best is min(epochs, key=lambda epoch: epoch.held_out)
    assert adaptation.best.held_out < adaptation.start.held_out - 0.1
    fresh = load_model(tiny_base)
    assert adaptation.start.held_out == evaluate(fresh, tiny_tokenizer, others, batch=4).per_token
    told = evaluate(apply_adapter(fresh, adaptation.best.adapter), tiny_tokenizer, others, batch=4).per_token
    assert told == adaptation.best.held_out, "the adapter that is handed out is the one that was measured"


def test_the_same_seed_leads_to_the_same_adapter_and_another_to_another(begin) -> None:
    def fitted(seed: int) -> np.ndarray:
        adaptation = begin(replace(FITTING, epochs=1, seed=seed))
        (epoch,) = adaptation.epochs()
        return flatten(epoch.adapter)

    assert np.array_equal(fitted(0), fitted(0))
    assert not np.array_equal(fitted(0), fitted(1))


def test_it_ends_once_patience_is_over_and_keeps_the_best(begin, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 1.2, 0.1])
    measured = Adaptation._measured

    def told(self: Adaptation, number: int, loss: float) -> Epoch:
        return replace(measured(self, number, loss), held_out=next(figures))

    monkeypatch.setattr(Adaptation, "_measured", told)
    adaptation = begin(replace(FITTING, epochs=50, patience=3, rate=1e-4))
    epochs = list(adaptation.epochs())
    assert [epoch.held_out for epoch in epochs] == [2.0, 2.5, 1.0, 1.5, 1.0, 1.2]
    assert (adaptation.best, adaptation.ended, adaptation.ran) == (epochs[2], "patience", 6)


def test_where_nothing_is_better_the_beginning_is_the_best(begin, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Adaptation._measured

    def worse(self: Adaptation, number: int, loss: float) -> Epoch:
        return replace(measured(self, number, loss), held_out=5.0 + number)

    monkeypatch.setattr(Adaptation, "_measured", worse)
    adaptation = begin(replace(FITTING, epochs=20, patience=2))
    epochs = list(adaptation.epochs())
    assert adaptation.best is adaptation.start
    assert (len(epochs), adaptation.ended) == (2, "patience")


def test_what_is_no_number_ends_it_with_the_best_so_far(begin, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Adaptation._measured

    def broken(self: Adaptation, number: int, loss: float) -> Epoch:
        return replace(measured(self, number, loss), **({"held_out": float("nan")} if number == 2 else {}))

    monkeypatch.setattr(Adaptation, "_measured", broken)
    adaptation = begin(FITTING)
    (epoch,) = adaptation.epochs()
    assert (adaptation.ended, adaptation.ran, adaptation.best) == ("diverged", 2, epoch)


def test_the_base_model_stays_as_it_is(begin, tiny_base: Path) -> None:
    adaptation = begin(replace(FITTING, epochs=1))
    list(adaptation.epochs())
    trained = set(adaptation.start.adapter)
    after = dict(adaptation._model.named_parameters())
    base = dict(attach(load_model(tiny_base)).named_parameters())
    for name in set(base) - trained:
        assert np.array_equal(base[name].detach().numpy(), after[name].detach().numpy()), name


def test_the_learning_rate_rises_over_the_first_epoch_alone(begin, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = Adaptation._step

    def noted(self, windows, parameters, optimiser):
        rates.append(optimiser.param_groups[0]["lr"])
        return step(self, windows, parameters, optimiser)

    monkeypatch.setattr(Adaptation, "_step", noted)
    adaptation = begin(replace(FITTING, epochs=2, batch=1))
    list(adaptation.epochs())
    steps = adaptation.steps
    assert steps > 2
    assert rates == pytest.approx([FITTING.rate * min(1, (n + 1) / steps) for n in range(2 * steps)])


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_a_share_of_the_recordings_is_held_out_and_never_all(share: float) -> None:
    for count in (5, 6, 40):
        trained, held = hold_out(count, share, seed=3)
        assert sorted([*trained, *held]) == list(range(count))
        assert len(held) == min(max(1, round(share * count)), count - 1)
        assert all(np.array_equal(a, b) for a, b in zip(hold_out(count, share, 3), (trained, held), strict=True))
    assert any(not np.array_equal(hold_out(40, 0.2, 0)[1], hold_out(40, 0.2, seed)[1]) for seed in (1, 2))


def test_too_few_recordings_are_said_with_how_many_it_takes() -> None:
    with pytest.raises(InputError, match=f"4 recordings with notes, and {FEWEST} are the fewest"):
        hold_out(4, 0.2, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("patience", 0), ("batch", 0), ("share", 0.0), ("share", 1.0), ("share", float("nan")),
     ("rate", 0.0), ("rate", 1.5), ("rate", float("nan")), ("seed", -1)],
)  # fmt: skip
def test_a_setting_out_of_its_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is "):
        replace(FITTING, **{name: value})
