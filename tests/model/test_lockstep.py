from pathlib import Path

import pytest
import torch

from partbook.model.checkpoint import load_model
from partbook.model.lockstep import LockstepCache
from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS, MEMORY_FRAMES


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PartbookModel:
    return load_model(tiny_base).double()


def alone(model: PartbookModel, ids: list[int]) -> torch.Tensor:
    silent = torch.full((1, MEMORY_FRAMES, BANDS), -1.0, dtype=torch.float64), torch.zeros(1, dtype=torch.bool)
    return model(torch.tensor([ids]), *silent)[0, -1]


def test_every_row_says_what_the_model_says_of_that_row_alone(model: PartbookModel) -> None:
    rows = [[1, 5, 9], [1], [1, 7, 7, 8, 20, 30]]
    with torch.inference_mode():
        cache = LockstepCache(model, 3)
        for row, ids in enumerate(rows):
            assert (cache.prime(row, torch.tensor(ids)) - alone(model, ids)).abs().max() < 1e-9
        for turn in range(40):
            token = [10 + turn, 11 + turn, 12 + turn]
            active = torch.tensor([True, turn % 2 == 0, turn < 20])
            logits = cache.step(torch.tensor(token), active)
            for row in range(3):
                if active[row]:
                    rows[row].append(token[row])
                    assert (logits[row] - alone(model, rows[row])).abs().max() < 1e-9
        assert cache.lengths.tolist() == [len(ids) for ids in rows]


def test_a_row_begins_anew_while_others_go_on(model: PartbookModel) -> None:
    with torch.inference_mode():
        cache = LockstepCache(model, 2)
        cache.prime(0, torch.tensor([1, 4, 5, 6, 7, 8, 9]))
        cache.prime(1, torch.tensor([1, 3]))
        cache.step(torch.tensor([10, 11]), torch.tensor([False, True]))
        assert (cache.prime(0, torch.tensor([1, 40])) - alone(model, [1, 40])).abs().max() < 1e-9
        logits = cache.step(torch.tensor([12, 13]), torch.tensor([True, True]))
    assert (logits[0] - alone(model, [1, 40, 12])).abs().max() < 1e-9
    assert (logits[1] - alone(model, [1, 3, 11, 13])).abs().max() < 1e-9
