from __future__ import annotations

import pytest
import torch

from partbook.errors import ConfigError
from partbook.training.devices import devices_of, take_share


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with so many cards; what torch says of them is all that is asked."""

    def with_cards(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return with_cards


def names(named: list[str] | None, gpu_share: float = 1.0) -> list[str]:
    return [str(device) for device in devices_of(named, gpu_share)]


def test_every_accelerator_is_used_where_nothing_is_said(machine) -> None:
    machine(3)
    assert names(None) == names(["cuda"]) == ["cuda:0", "cuda:1", "cuda:2"]
    assert names(["cuda:2", "cuda:0"]) == ["cuda:2", "cuda:0"]
    machine(1)
    assert names(None) == ["cuda:0"]


def test_without_accelerators_or_with_no_share_of_them_it_is_the_cpu(machine) -> None:
    machine(0)
    assert names(None) == ["cpu"]
    machine(2)
    assert names(None, gpu_share=0) == ["cpu"]
    assert names(["cpu", "cpu"]) == ["cpu", "cpu"]


@pytest.mark.parametrize(
    ("cards", "named", "share", "said"),
    [
        (2, ["cuda:2"], 1, r"cuda:2 is not there \(torch sees: cuda:0, cuda:1\)"),
        (0, ["cuda"], 1, r"not there \(torch sees: none\)"),
        (2, ["cuda:0", "cuda:0"], 1, "named twice"),
        (2, ["cuda", "cuda:1"], 1, "named twice"),
        (2, ["cuda:0", "cpu"], 1, "two kinds"),
        (2, ["cuda:0"], 0, "policy keeps off"),
        (2, ["gpu0"], 1, "'gpu0' is no device"),
        (2, [], 1, "names none"),
    ],
)
def test_a_device_that_cannot_be_used_is_named(machine, cards: int, named: list[str], share: float, said: str) -> None:
    machine(cards)
    with pytest.raises(ConfigError, match=said):
        devices_of(named, share)


def test_a_share_is_of_each_devices_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: taken.append(given))
    take_share(torch.device("cpu"), 0.5)
    take_share(torch.device("cuda:1"), 0.5)
    assert taken == [(0.5, torch.device("cuda:1"))]
