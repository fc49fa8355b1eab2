from __future__ import annotations

import pytest

from partbook.errors import AlteredFile, BadSignature
from partbook.identity.keys import IdentityKey
from partbook.provenance import manifest as manifests
from partbook.provenance.signing import open_signed, sign_folder


@pytest.fixture(scope="module")
def key() -> IdentityKey:
    return IdentityKey.generate()


@pytest.fixture
def folder(tmp_path, key):
    (tmp_path / "a").write_text("content")
    sign_folder(tmp_path, ["a"], key, about={"kind": "test"})
    return tmp_path


def test_a_signed_folder_opens_with_and_without_the_pinned_signer(folder, key):
    for signer in (None, key.public):
        manifest, found = open_signed(folder, signer=signer)
        assert found == key.public
        assert manifest.about == {"kind": "test", "signer": key.public.fingerprint}
        assert manifest.read(folder, "a") == b"content"


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig", "signer.pem"])
def test_any_flipped_byte_of_what_proves_the_folder_is_refused_by_name(folder, name):
    good = (folder / name).read_bytes()
    for index in range(len(good)):
        (folder / name).write_bytes(good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :])
        with pytest.raises(BadSignature, match=name.replace(".", r"\.")):
            open_signed(folder, signer=None)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig", "signer.pem"])
def test_a_missing_proof_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(AlteredFile, match=name.replace(".", r"\.")):
        open_signed(folder, signer=None)


def test_another_signer_than_the_pinned_one_is_refused_with_both_fingerprints(folder, key):
    expected = IdentityKey.generate().public
    with pytest.raises(BadSignature) as refusal:
        open_signed(folder, signer=expected)
    assert expected.fingerprint in str(refusal.value)
    assert key.public.fingerprint in str(refusal.value)


def test_a_folder_signed_again_by_a_stranger_opens_only_unpinned(folder, key):
    stranger = IdentityKey.generate()
    sign_folder(folder, ["a"], stranger)
    assert open_signed(folder, signer=None)[1] == stranger.public
    with pytest.raises(BadSignature, match="not the signer you expect"):
        open_signed(folder, signer=key.public)


def test_a_manifest_that_names_another_signer_is_refused(folder, key):
    manifest = manifests.write(folder, ["a"], {"signer": IdentityKey.generate().public.fingerprint})
    (folder / "manifest.sig").write_bytes(key.sign(manifest.encode(), "partbook/v1/release"))
    with pytest.raises(BadSignature, match="names as its signer"):
        open_signed(folder, signer=key.public)


def test_a_signature_made_for_another_purpose_is_refused(folder, key):
    blob = (folder / "manifest.json").read_bytes()
    (folder / "manifest.sig").write_bytes(key.sign(blob, "partbook/v1/round"))
    with pytest.raises(BadSignature, match="does not verify"):
        open_signed(folder, signer=key.public)


def test_an_unlisted_file_is_refused(folder):
    (folder / "extra").write_text("")
    with pytest.raises(AlteredFile, match="extra is not in the manifest"):
        open_signed(folder, signer=None)


def test_what_is_no_folder_is_refused(folder):
    with pytest.raises(AlteredFile, match="not a folder"):
        open_signed(folder / "a", signer=None)
