from __future__ import annotations

import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
import tenseal

from partbook.errors import ForeignSealKey, InsecureKeyFile, UnusableKey
from partbook.sealing import parameters
from partbook.sealing.parameters import PARAMETER_HASH, SealPublic, SealSecret
from partbook.secagg.rings import T

Keys = tuple[SealSecret, SealPublic]


def context(
    scheme: Any = tenseal.SCHEME_TYPE.BFV, degree: int = 4096, t: int = T, bits: Any = (60, 40), **rest: Any
) -> Any:
    return tenseal.context(scheme, degree, t, list(bits), n_threads=1, **rest)


def test_the_parameter_hash_changes_only_with_the_protocol_version() -> None:
    assert PARAMETER_HASH == "1891ecc404c3ccd84a67dd3de0f90f6023b6507552a9585e103b90a80396583c"


def test_a_public_key_comes_back_from_its_file_with_its_id(tmp_path: Path, seal_keys: Keys) -> None:
    secret, public = seal_keys
    public.write(tmp_path / "k")
    assert SealPublic.read(tmp_path / "k", public.key_id) == public == SealPublic.read(tmp_path / "k", None)
    assert secret.key_id == public.key_id
    assert pickle.loads(pickle.dumps(public)) == public  # noqa: S301


def test_another_key_than_the_rosters_is_foreign(tmp_path: Path, seal_keys: Keys, other_seal_keys: Keys) -> None:
    seal_keys[1].write(tmp_path / "k")
    with pytest.raises(ForeignSealKey, match="roster"):
        SealPublic.read(tmp_path / "k", other_seal_keys[1].key_id)


def test_the_id_is_compared_before_the_library_sees_a_byte(tmp_path: Path, seal_keys: Keys) -> None:
    (tmp_path / "k").write_bytes(b"not a key at all")
    with pytest.raises(ForeignSealKey):
        SealPublic.read(tmp_path / "k", seal_keys[1].key_id)


def test_what_is_no_public_key_is_named_with_its_file(tmp_path: Path, seal_keys: Keys) -> None:
    blob = seal_keys[1].blob
    for index, bad in enumerate([b"", b"abc", blob[:-1], blob + b"x", blob[:5000], bytes(2**20 + 1)]):
        path = tmp_path / f"bad{index}"
        path.write_bytes(bad)
        with pytest.raises(UnusableKey, match=path.name):
            SealPublic.read(path, None)
    with pytest.raises(UnusableKey, match="cannot be read"):
        SealPublic.read(tmp_path / "absent", None)


def test_a_secret_key_is_never_taken_for_a_public_one(seal_keys: Keys) -> None:
    with pytest.raises(UnusableKey, match="SECRET"):
        SealPublic(seal_keys[0].reveal())


@pytest.mark.parametrize(
    "other",
    [
        lambda: context(degree=8192, bits=(60, 40)),
        lambda: context(t=1032193),
        lambda: context(bits=(59, 40)),
        lambda: context(bits=(60, 41)),
        lambda: tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40], n_threads=1),
    ],
)
def test_keys_for_other_parameters_are_refused(other: Any) -> None:
    made = other()
    with pytest.raises(UnusableKey, match="parameters"):
        SealPublic(made.serialize(True, False, False, False))
    with pytest.raises(UnusableKey, match="parameters"):
        _ = SealSecret(made.serialize(True, True, False, False)).public


def test_a_key_for_symmetric_encryption_is_refused() -> None:
    made = context(encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC)
    with pytest.raises(UnusableKey):
        SealPublic(made.serialize(True, False, False, False))


def test_a_public_key_carries_nothing_else() -> None:
    made = context()
    made.generate_relin_keys()
    with pytest.raises(UnusableKey):
        SealPublic(made.serialize(True, False, False, True))


def test_parameters_alone_are_no_key() -> None:
    with pytest.raises(UnusableKey, match="public half"):
        SealPublic(context().serialize(False, False, False, False))


def test_the_coordinators_context_holds_no_key() -> None:
    native = parameters.parameters_only()
    assert not native.has_secret_key()
    assert not native.has_public_key()


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_secret_key_comes_back_from_a_file_only_its_owner_reads(
    tmp_path: Path, seal_keys: Keys, passphrase: bytes | None
) -> None:
    path = tmp_path / "s"
    seal_keys[0].write(path, passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (seal_keys[0].reveal()[2000:2200] in path.read_bytes()) == (passphrase is None)
    back = SealSecret.read(path, passphrase)
    assert back.key_id == seal_keys[0].key_id
    assert back.reveal() == seal_keys[0].reveal()


def test_a_secret_key_is_never_overwritten(tmp_path: Path, seal_keys: Keys) -> None:
    seal_keys[0].write(tmp_path / "s", None)
    with pytest.raises(UnusableKey, match="never overwritten"):
        seal_keys[0].write(tmp_path / "s", None)


def test_a_secret_key_that_others_may_read_is_refused(tmp_path: Path, seal_keys: Keys) -> None:
    seal_keys[0].write(tmp_path / "s", None)
    (tmp_path / "s").chmod(0o640)
    with pytest.raises(InsecureKeyFile):
        SealSecret.read(tmp_path / "s", None)


def test_a_missing_or_wrong_passphrase_is_told_apart_from_an_unneeded_one(tmp_path: Path, seal_keys: Keys) -> None:
    seal_keys[0].write(tmp_path / "open", None)
    seal_keys[0].write(tmp_path / "locked", b"correct horse")
    with pytest.raises(UnusableKey, match="give no passphrase"):
        SealSecret.read(tmp_path / "open", b"x")
    with pytest.raises(UnusableKey, match="give its passphrase"):
        SealSecret.read(tmp_path / "locked", None)
    with pytest.raises(UnusableKey, match="does not open"):
        SealSecret.read(tmp_path / "locked", b"wrong")


def test_a_damaged_secret_key_is_named_and_not_quoted(tmp_path: Path, seal_keys: Keys) -> None:
    seal_keys[0].write(tmp_path / "s", None)
    whole = (tmp_path / "s").read_bytes()
    id_changed = bytearray(whole)
    id_changed[30] ^= 1
    for bad in (b"", whole[:20], whole[:60], whole[:-1], bytes(id_changed), b"x" + whole[1:]):
        (tmp_path / "s").write_bytes(bad)
        with pytest.raises(UnusableKey) as caught:
            SealSecret.read(tmp_path / "s", None)
        assert "\\x" not in str(caught.value)
    (tmp_path / "s").unlink()
    seal_keys[0].write(tmp_path / "s", b"p")
    whole = (tmp_path / "s").read_bytes()
    for bad in (whole[:70], whole[:-1]):
        (tmp_path / "s").write_bytes(bad)
        with pytest.raises(UnusableKey):
            SealSecret.read(tmp_path / "s", b"p")


def test_a_secret_key_shows_and_pickles_nothing(seal_keys: Keys) -> None:
    assert repr(seal_keys[0]) == f"SealSecret({seal_keys[0].key_id[:16]}…)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(seal_keys[0])
