from pathlib import Path

import pytest

from partbook.coordinator.failure import clear_failure, read_failure, write_failure
from partbook.errors import CohortTooSmall, PartbookError, RunFailed


def test_an_error_of_the_tree_comes_back_as_itself(tmp_path: Path) -> None:
    write_failure(tmp_path / "state", CohortTooSmall("2 of 3 answered."))
    found = read_failure(tmp_path / "state")
    assert type(found) is CohortTooSmall
    assert str(found) == "2 of 3 answered."


@pytest.mark.parametrize("error", [MemoryError("gone"), OSError(28, "No space left on device")])
def test_any_other_error_is_a_failed_run_that_names_it(tmp_path: Path, error: Exception) -> None:
    write_failure(tmp_path, error)
    found = read_failure(tmp_path)
    assert type(found) is RunFailed
    assert type(error).__name__ in str(found)


def test_a_name_that_is_no_error_of_ours_makes_nothing_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "failure.json").write_text('{"error": "annotations", "message": "x"}')
    assert type(read_failure(tmp_path)) is RunFailed
    (tmp_path / "failure.json").write_text("{")
    assert isinstance(read_failure(tmp_path), PartbookError)


def test_nothing_is_found_where_nothing_failed_or_it_was_cleared(tmp_path: Path) -> None:
    assert read_failure(tmp_path) is None
    write_failure(tmp_path, ValueError("x"))
    clear_failure(tmp_path)
    clear_failure(tmp_path)
    assert read_failure(tmp_path) is None


def test_a_folder_that_takes_no_file_is_no_second_error(tmp_path: Path) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be")
    write_failure(blocked, ValueError("x"))
