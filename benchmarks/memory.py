"""What hearing the past is worth: held-out likelihood with the right eight seconds, another recording's, and none.

Takes a run of the demo: python -m benchmarks.memory runs/<date>
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np

from benchmarks.claims import Claim, report
from partbook.coordinator.validation import ValidationSet
from partbook.generator.release import load_generator, open_release
from partbook.model.likelihood import evaluate
from partbook.music.recording import Recording
from partbook.plan.federation import FederationConfig


def main(run: Path) -> int:
    """Score the run's release three times on the run's validation set."""
    config = FederationConfig.read(run / "federation.toml")
    if config.validation is None:
        sys.exit(f"{run} was not validated")
    sets = ValidationSet.read(config.validation).by_label
    generator = load_generator(open_release(run / "release", signer=None))
    recordings = [r for label in sorted(sets) for r in sets[label]]
    others = recordings[len(recordings) // 2 :] + recordings[: len(recordings) // 2]  # another label's, each

    def with_mel(recording: Recording, mel: np.ndarray) -> Recording:
        return dataclasses.replace(recording, mel=mel)

    def score(items: list[Recording]) -> float:
        return evaluate(generator.model, generator.tokenizer, items).per_token

    right = score(recordings)
    wrong = score([with_mel(r, o.mel) for r, o in zip(recordings, others, strict=True)])
    silent = score([with_mel(r, r.mel[:0]) for r in recordings])
    print(f"nats per token: right past {right:.4f}, another label's {wrong:.4f}, none {silent:.4f}")
    claims = [
        Claim("held-out NLL hearing the right past", "nats/token", right, silent, "no memory", 1.0, at_least=False),
        Claim("held-out NLL hearing the right past", "nats/token", right, wrong, "another's past", 1.0, at_least=False),
    ]
    return 0 if report("memory", claims) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
