import errno
import os
from pathlib import Path

import pytest
from flushes import watched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partbook.errors import VaultError, WrongVaultKey
from partbook.node.keeping import Keeping

KEY = bytes(range(32))


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path / "kept", KEY)


@given(plain=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_what_is_put_comes_back_and_is_not_on_the_disk(keeping: Keeping, tmp_path: Path, plain: bytes) -> None:
    keeping.put("thing", plain)
    assert keeping.get("thing") == plain
    assert Keeping(tmp_path / "kept", KEY).get("thing") == plain
    (path,) = (tmp_path / "kept").iterdir()
    assert path.stat().st_size == len(plain) + 12 + 16
    if len(plain) >= 8:  # shorter ones chance may write
        assert plain not in path.read_bytes()


def test_nothing_was_put_under_another_name(keeping: Keeping) -> None:
    keeping.put("thing", b"x")
    assert keeping.get("other") is None
    keeping.remove("thing")
    keeping.remove("thing")
    assert keeping.get("thing") is None


def test_the_same_thing_is_never_encrypted_to_the_same_bytes(keeping: Keeping, tmp_path: Path) -> None:
    written = set()
    for _ in range(5):
        keeping.put("thing", b"secret")
        written.add((tmp_path / "kept" / "thing.sealed").read_bytes())
    assert len(written) == 5


@pytest.mark.parametrize("index", [0, 11, 12, -1])
def test_an_altered_bit_is_named(keeping: Keeping, tmp_path: Path, index: int) -> None:
    keeping.put("thing", b"secret")
    path = tmp_path / "kept" / "thing.sealed"
    blob = bytearray(path.read_bytes())
    blob[index] ^= 1
    path.write_bytes(bytes(blob))
    with pytest.raises(WrongVaultKey, match="thing"):
        keeping.get("thing")


def test_another_key_or_another_name_opens_nothing(keeping: Keeping, tmp_path: Path) -> None:
    keeping.put("thing", b"secret")
    with pytest.raises(WrongVaultKey):
        Keeping(tmp_path / "kept", bytes(32)).get("thing")
    (tmp_path / "kept" / "thing.sealed").rename(tmp_path / "kept" / "other.sealed")
    with pytest.raises(WrongVaultKey):
        keeping.get("other")


def test_only_the_owner_may_read(keeping: Keeping, tmp_path: Path) -> None:
    keeping.put("thing", b"secret")
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0
    assert (tmp_path / "kept" / "thing.sealed").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("call", ["fsync", "open", "replace"])
def test_a_full_disk_keeps_what_was_there_and_leaves_no_litter(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    keeping.put("thing", b"first")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(VaultError, match=r"thing.*No space left.*nothing was sent"):
            keeping.put("thing", b"second")
    assert keeping.get("thing") == b"first"
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["thing.sealed"]


def test_what_is_put_is_on_the_disk_before_its_name_and_its_name_before_it_counts(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        seen = watched(patch)
        keeping.put("thing", b"secret")
        assert seen == ["34 bytes", "named thing.sealed", "folder kept"]
        keeping.remove("thing")
        assert seen[3:] == ["folder kept"], "what is forgotten does not come back"


def test_a_folder_that_cannot_be_made_or_read_is_named(keeping: Keeping, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VaultError, match="file"):
        Keeping(tmp_path / "file" / "kept", KEY)
    (tmp_path / "kept" / "folder.sealed").mkdir()
    with pytest.raises(VaultError, match="cannot be read"):
        keeping.get("folder")
