"""Generation with the key–value cache against the same model recomputing the whole window for every token."""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from benchmarks.claims import Claim, report
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.model.generation import Writer
from partbook.music.mel import BANDS, MEMORY_FRAMES

TOKENS = 160


def main() -> int:
    """Write the same number of tokens both ways, in turns, and compare the best of three."""
    torch.set_num_threads(1)
    model, tokenizer = load_model(), load_tokenizer()
    nothing = np.zeros(0, np.int16)
    silent = torch.zeros(1, MEMORY_FRAMES, BANDS), torch.zeros(1, dtype=torch.bool)

    def cached() -> list[int]:
        writer = Writer(model, tokenizer, None, nothing)
        for _ in range(TOKENS):
            writer.append(int(writer.logits().argmax()))
        return writer.ids

    def uncached() -> list[int]:
        ids: list[int] = []
        for _ in range(TOKENS):
            logits = model(torch.tensor([[tokenizer.bos, *ids]]), *silent)
            ids.append(int(logits[0, -1].argmax()))
        return ids

    best: dict[str, float] = {}
    written: dict[str, list[int]] = {}
    with torch.inference_mode():
        for _ in range(3):
            for name, write in (("cached", cached), ("uncached", uncached)):
                began = time.perf_counter()
                written[name] = write()
                best[name] = max(best.get(name, 0.0), TOKENS / (time.perf_counter() - began))
    print(f"with the cache {best['cached']:.0f}, without {best['uncached']:.0f} tokens a second, one thread")
    print(f"the same tokens both ways: {written['cached'] == written['uncached']}")
    claim = Claim("greedy generation, 160 tokens", "tokens/s", best["cached"], best["uncached"], "no cache", 4.0)
    return 0 if report("generation", [claim]) else 1


if __name__ == "__main__":
    sys.exit(main())
