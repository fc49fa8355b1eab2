"""The benchmarks of secure aggregation at tiny sizes: that they run to their closing line, never how fast."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from benchmarks import noise, scale, secagg
from benchmarks.claims import Claim
from benchmarks.cohort import EXCHANGES, Cohort, OneNode, play, vector

from partbook.secagg import graph


def closing_line(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1, "something readable comes first"
    closing = json.loads(lines[-1])
    assert set(closing) == {"bench", "machine", "claims"}
    for claim in closing["claims"]:
        assert set(claim) == {*Claim.__slots__, "ratio", "met"}
        assert all(claim[name] for name in ("what", "unit", "peer_name"))
        figures = [claim[name] for name in ("ours", "peer", "ratio", "target")]
        assert all(math.isfinite(figure) and figure > 0 for figure in figures), claim
    return closing["claims"]


def test_bench_secagg_runs_to_its_closing_line(capsys):
    asked = "--parameters 20000 --neighbours 3 --streamed 30000 --members 6 --dropped 1 --turns 1"
    assert secagg.main(asked.split()) in (0, 1)
    claims = closing_line(capsys)
    assert {claim["peer_name"] for claim in claims} == {
        secagg.FLOWER,
        "limit",
        "TenSEAL CKKS, NVIDIA FLARE's preset",
    }
    sizes = [claim for claim in claims if claim["what"] == "masked vector as sent"]
    assert all(claim["ours"] == 4 for claim in sizes), "4 bytes a parameter, at any size"


def test_bench_scale_runs_to_its_closing_line_and_draws_its_picture(capsys, tmp_path: Path):
    picture = tmp_path / "scale.svg"
    asked = f"--nodes 4 7 --sampled 10 101 --complete 101 --parameters 500 --picture {picture}"
    assert scale.main(asked.split()) in (0, 1)
    exact = [claim for claim in closing_line(capsys) if "exact" in claim["what"]]
    assert [claim["ours"] for claim in exact] == [1, 1]
    assert "<svg" in picture.read_text()
    assert graph.COMPLETE == 100, "measuring the complete graph leaves the constant as it was"


def test_bench_noise_runs_to_its_closing_line(capsys):
    assert noise.main(["--samples", "20000", "--peer-samples", "200", "--turns", "1"]) in (0, 1)
    assert {claim["unit"] for claim in closing_line(capsys)}


def test_one_member_among_played_peers_does_what_it_does_in_a_whole_round():
    cohort = Cohort(7)
    one = OneNode(cohort)
    assert sum(len(blob) for _, blob in one.contribute(vector(one.name, 100))) == 400
    one.finish(cohort.lost(1))
    whole = play(cohort, 100, 1)
    assert whole.exact
    for kind in EXCHANGES:
        # A signature is a few bytes longer or shorter each time.
        assert one.cost.received[kind] == pytest.approx(whole.node.received[kind], abs=60)
        assert one.cost.sent[kind] == pytest.approx(whole.node.sent[kind], abs=12)


def test_dropped_members_are_spread_over_the_cohort_and_never_the_first():
    cohort = Cohort(20)
    assert cohort.lost(0) == frozenset()
    assert cohort.lost(2) == {"label-00009", "label-00019"}
