"""The dashboard asks for what the coordinator serves, under just these names, and for all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from partbook.coordinator.metrics import _HELP as SERVED
from partbook.coordinator.metrics import samples
from partbook.coordinator.standing import PartyStanding, Spending, Status

PATH = Path(__file__).parents[2] / "deploy" / "grafana" / "partbook.json"
BOARD: dict[str, Any] = json.loads(PATH.read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]


def queries() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (v["definition"] for v in BOARD["templating"]["list"] if v["type"] == "query")


def test_every_name_that_is_asked_for_is_served() -> None:
    asked = {name for query in queries() for name in re.findall(r"partbook_\w+", query)}
    assert asked == set(SERVED), "each metric is served, and shown"


def test_every_label_that_is_asked_for_is_one_of_that_metric() -> None:
    party = PartyStanding(True, 1.0, "train", 2.0)
    privacy = Spending(1e-6, 1, 1.0, 1.0, 2.0, 2.0)
    full = Status("f", "masked", exchange="train", parties={"a": party}, recent={"train": (1.0,)}, privacy=privacy)
    status = Status(
        **{**{name: getattr(full, name) for name in full.__slots__}, "validation": {"x": 1.0}, "written": 9.0}
    )
    labels = {sample.exposed: set(sample.labels) for sample in samples(status, 10.0)}
    for panel in PANELS:
        for target in panel.get("targets", ()):
            (name, *_) = re.findall(r"partbook_\w+", target["expr"])
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = {word for group in re.findall(r"by \(([\w, ]+)\)", target["expr"]) for word in group.split(", ")}
            assert named | grouped <= labels.get(name, set()), target["expr"]


def test_every_query_is_of_the_chosen_coordinator_and_source() -> None:
    for panel in PANELS:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
            assert len(re.findall(r"partbook_\w+", target["expr"])) == target["expr"].count('{job="$job"}')


def test_panels_do_not_overlap_and_each_has_its_own_number() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_no_panel_reaches_outside() -> None:
    assert not re.findall(r"https?://", PATH.read_text())
