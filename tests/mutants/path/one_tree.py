"""A plugin of pytest's that ends a run which would import anything of Partbook from another tree than its own.

It also has properties fail by the first example that there is.
"""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

OTHER_TREE = 99  # pytest's exit status then; its own end at 5


def pytest_configure(config: pytest.Config) -> None:
    import partbook

    foreign = [place for place in partbook.__path__ if config.rootpath not in Path(place).parents]
    if foreign or len(list(partbook.__path__)) < 4:
        pytest.exit(f"partbook is {list(partbook.__path__)}, and this tree is {config.rootpath}", OTHER_TREE)
    # That a property fails is all that is asked, not what the least example is.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("unshrunk", hypothesis.settings.default, phases=phases)
    hypothesis.settings.load_profile("unshrunk")
