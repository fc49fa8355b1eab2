"""The check in a browser, where there is none."""

from __future__ import annotations

import pytest
from benchmarks import chromium, listening


def test_without_a_chromium_the_check_says_so_and_claims_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    assert chromium.find() is None
    assert listening.main(["--pictures", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert "No Chromium found" in said.err
    assert "nothing was checked" in said.err
    assert not said.out
