import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from partbook.errors import ConfigError
from partbook.model.config import ModelConfig, full, small
from partbook.model.layers import MEMORY_STEPS, SelfAttention, angles_at, rotary_frequencies
from partbook.model.transformer import PartbookModel, parameter_count
from partbook.music.mel import BANDS, MEMORY_FRAMES

CONFIG = ModelConfig(vocabulary=97, width=32, layers=3, heads=4, hidden=48, context=40)


@pytest.fixture
def model() -> PartbookModel:
    torch.manual_seed(0)
    return PartbookModel(CONFIG).eval()


def inputs(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    heard = torch.arange(batch) % 2 == 0
    return torch.randint(0, 97, (batch, length)), torch.rand(batch, MEMORY_FRAMES, BANDS) * 2 - 1, heard


@pytest.mark.parametrize("chunks", [[40], [1] * 40, [7, 1, 1, 20, 11]])
def test_cached_and_uncached_logits_agree(model: PartbookModel, chunks: list[int]) -> None:
    ids, mel, heard = inputs(3, 40)
    with torch.inference_mode():
        whole = model(ids, mel, heard)
        memory, audible = model.encode(mel, heard)
        cache = model.open_cache(memory)
        pieces = [model.step(part, cache, audible) for part in ids.split(chunks, dim=1)]
    assert (torch.cat(pieces, dim=1) - whole).abs().max() < 1e-4


def test_a_logit_depends_on_the_past_only(model: PartbookModel) -> None:
    ids, mel, heard = inputs(2, 20)
    changed = ids.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 97
    with torch.inference_mode():
        difference = (model(ids, mel, heard) - model(changed, mel, heard)).abs().amax(dim=(0, 2))
    assert difference[:12].max() == 0
    assert difference[12:].min() > 0


def test_memory_that_is_not_there_is_not_heard(model: PartbookModel) -> None:
    ids, mel, _ = inputs(2, 10)
    deaf = torch.zeros(2, dtype=torch.bool)
    with torch.inference_mode():
        assert torch.equal(model(ids, mel, deaf), model(ids, mel.flip(0), deaf))
        assert not torch.equal(model(ids, mel, ~deaf), model(ids, mel.flip(0), ~deaf))


def turned(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """One head's vector (8,), turned by its four angles as complex numbers."""
    spun = torch.complex(x[:4], x[4:]) * torch.polar(torch.ones(4), angle)
    return torch.cat([spun.real, spun.imag])


def test_attention_is_softmax_of_turned_products_one_head_by_index_and_one_by_time() -> None:
    torch.manual_seed(2)
    attention = SelfAttention(16, 2)
    torch.nn.init.normal_(attention.gain, 1.0, 0.3)
    x, after = torch.randn(1, 6, 16), torch.tensor([[0, 6, 6, 18, 48, 49]])
    before = torch.cat([torch.zeros(1, 1, dtype=torch.long), after[:, :-1]], dim=1)
    frequencies = rotary_frequencies(8)
    expected = torch.zeros(1, 6, 16)
    query, key, value = attention.query(x), attention.key(x), attention.value(x)

    def unit(vector: torch.Tensor) -> torch.Tensor:
        return vector / vector.square().mean().sqrt()

    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        asked_at, kept_at = (torch.arange(6), torch.arange(6)) if head == 0 else (after[0], before[0])
        for t in range(6):
            asked = turned(unit(query[0, t, part]) * attention.gain[head, 0, 0], asked_at[t] * frequencies)
            kept = [turned(unit(key[0, s, part]), kept_at[s] * frequencies) for s in range(t + 1)]
            weights = F.softmax(torch.stack([asked @ k / math.sqrt(8) for k in kept]), dim=0)
            expected[0, t, part] = (weights[:, None] * value[0, : t + 1, part]).sum(0)
    angles = angles_at(torch.arange(6)[None], before, after, frequencies, 2)
    assert torch.allclose(attention(x, angles, None, 0), attention.out(expected), atol=1e-5)


def test_what_was_written_a_bar_ago_lies_a_bar_away_whatever_was_written_since() -> None:
    torch.manual_seed(3)
    frequencies = rotary_frequencies(8)
    a, b = torch.randn(2, 8)
    scores = [turned(a, now * frequencies) @ turned(b, (now - 48) * frequencies) for now in (48, 96, 4800)]
    assert torch.stack(scores) == pytest.approx(float(scores[0]), abs=1e-3)


def test_only_every_second_block_listens_where_the_configuration_says_so() -> None:
    blocks = list(PartbookModel(replace(CONFIG, layers=4, listen_every=2)).decoder())
    assert [block.cross_attention is not None for block in blocks] == [False, True, False, True]


def test_memory_has_a_step_of_silence_and_forty_three_of_sound(model: PartbookModel) -> None:
    _, mel, heard = inputs(2, 1)
    memory, audible = model.encode(mel, heard)
    assert memory.shape == (2, 1 + MEMORY_STEPS, 32)
    assert audible[:, 0, 0].sum(-1).tolist() == [1 + MEMORY_STEPS, 1]


def test_the_sizes_are_those_of_the_design() -> None:
    big = full(10_000)
    assert (big.layers, big.heads, big.width, big.hidden) == (12, 8, 512, 2048)
    assert 50_000_000 < parameter_count(PartbookModel(big)) < 65_000_000
    assert parameter_count(PartbookModel(small(2000))) < 5_000_000


def test_a_configuration_survives_json_and_bad_ones_are_named() -> None:
    assert ModelConfig.from_json(CONFIG.to_json()) == CONFIG
    with pytest.raises(ConfigError, match="heads"):
        ModelConfig(10, width=30, layers=1, heads=4, hidden=8, context=8)
    with pytest.raises(ConfigError, match=r"config\.json"):
        ModelConfig.from_json('{"width": 3}')
