from __future__ import annotations

import pytest

from partbook.sealing.parameters import SealPublic, SealSecret, generate


@pytest.fixture(scope="session")
def seal_keys() -> tuple[SealSecret, SealPublic]:
    return generate()


@pytest.fixture(scope="session")
def other_seal_keys() -> tuple[SealSecret, SealPublic]:
    return generate()
