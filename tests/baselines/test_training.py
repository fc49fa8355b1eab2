import json
from pathlib import Path

import numpy as np
import pytest
from tunes import tune
from works import Silent, TuneLibrary

from partbook.baselines import training
from partbook.baselines.loading import learnt_from, load_language_model
from partbook.baselines.training import Order, train
from partbook.corpus.scores import written
from partbook.errors import AlteredFile, ConfigError
from partbook.model.checkpoint import load_tokenizer
from partbook.music.quantised import quantised
from partbook.pretraining.mixture import Piece
from partbook.pretraining.pieces import Pieces


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def order_of(kind: str, **said: object) -> Order:
    """An order that has nothing heard: that takes seconds a work."""
    return Order(kind, takes=0, **said)  # type: ignore[arg-type]


def made(order: Order, out: Path, cache: Path) -> dict:
    return train(order, out, Silent(), cache=cache, library=TuneLibrary())


class Stopped(Exception):
    """Somebody pressed Ctrl-C."""


class Impatient(Silent):
    """Stops the training after so many of its steps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def step(self, what: str) -> None:
        super().step(what)
        if sum("nats" in step for step in self.steps if "step" not in step) >= self._after:
            raise Stopped


@pytest.mark.parametrize("kind", ["kneser-ney", "lstm", "vae"])
def test_one_command_makes_a_model_that_loads_scores_and_writes(kind: str, tmp_path: Path, cache: Path) -> None:
    manifest = made(order_of(kind, tokens=500, batch=400), tmp_path / "model", cache)
    assert manifest["kind"] == kind
    assert manifest["about"]["works"] == 12
    assert learnt_from(tmp_path / "model") == {f"{name}/{n}" for name in TuneLibrary.collections for n in range(6)}
    assert manifest["about"]["pieces"] == {"score": 11, "heard": 0}  # one work cannot be read
    assert manifest["about"]["tokens_seen"] >= 500
    assert "partbook baseline train" in manifest["about"]["command"]
    assert json.loads((tmp_path / "model" / "manifest.json").read_text()) == manifest
    model = load_language_model(tmp_path / "model")
    recording = written(TuneLibrary().each_score(TuneLibrary().pool("bach", "heldout"))[0], load_tokenizer())
    assert (model.nats(recording) > 0).all()
    assert model.bound == (kind == "vae")
    with pytest.raises(ConfigError, match="finished"):
        made(order_of(kind), tmp_path / "model", cache)


def test_counting_knows_the_tunes_it_has_counted(tmp_path: Path, cache: Path) -> None:
    made(order_of("kneser-ney"), tmp_path / "model", cache)
    model, tokenizer = load_language_model(tmp_path / "model"), load_tokenizer()
    known = written(TuneLibrary().each_score(TuneLibrary().pool("bach", "base"))[0], tokenizer)
    assert model.nats(known).mean() < 0.2 * np.log(len(tokenizer))


@pytest.mark.parametrize("kind", ["lstm", "vae"])
def test_an_interrupted_training_goes_on_to_the_same_weights(kind, tmp_path, cache, monkeypatch) -> None:
    monkeypatch.setattr(training, "_KEEP_EVERY", 2)
    order = order_of(kind, tokens=500, batch=100)
    whole = made(order, tmp_path / "whole", cache)
    with pytest.raises(Stopped):
        train(order, tmp_path / "cut", Impatient(4), cache=cache, library=TuneLibrary())
    assert not (tmp_path / "cut" / "manifest.json").exists()
    with pytest.raises(ConfigError, match="another training"):
        made(order_of(kind, tokens=600, batch=100), tmp_path / "cut", cache)
    watcher = Silent()
    assert train(order, tmp_path / "cut", watcher, cache=cache, library=TuneLibrary()) == whole
    assert watcher.steps.count("was done before") == 2
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "works.json",
    ]


def test_works_are_read_once_for_all_baselines(tmp_path: Path) -> None:
    first, second = Silent(), Silent()
    library, cache = TuneLibrary(), tmp_path / "cache"
    train(order_of("kneser-ney"), tmp_path / "a", first, cache=cache, library=library)
    train(order_of("kneser-ney"), tmp_path / "b", second, cache=cache, library=library)
    assert any("on the grid" in stage for stage in first.stages)
    assert not any("on the grid" in stage for stage in second.stages)
    assert (tmp_path / "a" / "model.npz").read_bytes() == (tmp_path / "b" / "model.npz").read_bytes()


def test_some_works_are_learnt_from_as_they_are_heard(tmp_path: Path, cache: Path, monkeypatch) -> None:
    asked = []

    def heard(library, works, takes, folder, watcher) -> Pieces:
        asked.append(([work.key for work in works], list(takes), folder))
        music = [quantised(tune(number)) for number in range(2)]
        return Pieces(tuple(Piece(w.collection, m, "heard") for w, m in zip(works, music, strict=False)), "ears")

    monkeypatch.setattr(training, "heard", heard)
    manifest = made(Order("kneser-ney", takes=2, heard_works=1), tmp_path / "model", cache)
    ((keys, takes, folder),) = asked
    assert (sorted(key.partition("/")[0] for key in keys), takes, folder) == (["bach", "monteverdi"], [0, 1], cache)
    assert manifest["about"]["pieces"] == {"score": 11, "heard": 2}
    monkeypatch.undo()
    alone = made(order_of("kneser-ney"), tmp_path / "alone", cache)["about"]
    assert alone["corpus_sha256"] != manifest["about"]["corpus_sha256"]
    assert alone["tokens_seen"] < manifest["about"]["tokens_seen"]


def test_only_named_collections_are_learnt_from(tmp_path: Path, cache: Path) -> None:
    manifest = made(order_of("kneser-ney", collections=("monteverdi",)), tmp_path / "model", cache)
    assert manifest["about"]["works"] == 6
    with pytest.raises(ConfigError, match="there are bach, monteverdi"):
        made(order_of("kneser-ney", collections=("beethoven",)), tmp_path / "other", cache)


def test_what_was_changed_since_is_refused(tmp_path: Path, cache: Path) -> None:
    made(order_of("kneser-ney"), tmp_path / "model", cache)
    (tmp_path / "model" / "model.npz").write_bytes(b"counts")
    with pytest.raises(AlteredFile, match=r"model\.npz"):
        load_language_model(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    (tmp_path / "model" / "manifest.json").write_text(json.dumps({**manifest, "tokenizer_sha256": "0"}))
    with pytest.raises(ConfigError, match="another tokeniser"):
        load_language_model(tmp_path / "model")
    with pytest.raises(ConfigError, match="is no model"):
        load_language_model(tmp_path / "nowhere")


def test_the_base_goes_by_its_name_and_by_its_folder(tiny_base: Path) -> None:
    assert load_language_model("base").name == "base"
    with pytest.raises(ConfigError, match="another tokeniser"):
        load_language_model(tiny_base)
