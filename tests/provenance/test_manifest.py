from __future__ import annotations

import hashlib
import json

import pytest

from partbook.errors import AlteredFile
from partbook.provenance import manifest as manifests
from partbook.provenance.manifest import Entry, Manifest

NAMES = ["a.bin", "sub/b.txt"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 9000)  # two chunks and a bit
    (tmp_path / "sub" / "b.txt").write_text("ünïcode")
    return tmp_path


def test_a_manifest_lists_hash_and_size_and_the_folder_checks(folder):
    written = manifests.write(folder, NAMES, {"seed": 7})
    blob = (folder / "a.bin").read_bytes()
    assert written.files["a.bin"] == Entry(hashlib.sha256(blob).hexdigest(), len(blob))
    assert manifests.check(folder) == written
    assert (folder / "manifest.json").read_bytes() == written.encode()
    assert written.digest == hashlib.sha256(written.encode()).hexdigest()
    assert written.read(folder, "a.bin") == blob


def test_its_encoding_does_not_depend_on_the_order_of_files(folder):
    assert manifests.build(folder, NAMES).encode() == manifests.build(folder, NAMES[::-1]).encode()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("harm", ["flip", "shorten", "lengthen", "remove", "link"])
def test_harm_to_a_file_is_found_and_the_file_named(folder, name, harm):
    manifest = manifests.write(folder, NAMES)
    path = folder / name
    blob = path.read_bytes()
    path.unlink()
    if harm == "flip":
        path.write_bytes(bytes([blob[0] ^ 1]) + blob[1:])
    elif harm == "shorten":
        path.write_bytes(blob[:-1])
    elif harm == "lengthen":
        path.write_bytes(blob + b"\0")
    elif harm == "link":
        (folder.parent / "elsewhere").write_bytes(blob)
        path.symlink_to(folder.parent / "elsewhere")
    with pytest.raises(AlteredFile, match=path.name):
        manifests.check(folder)
    with pytest.raises(AlteredFile, match=path.name):
        manifest.read(folder, name)


def test_a_file_nobody_vouched_for_is_named(folder):
    manifests.write(folder, NAMES)
    (folder / "sub" / "more.py").write_text("")
    with pytest.raises(AlteredFile, match=r"more\.py is not in the manifest"):
        manifests.check(folder)
    assert manifests.check(folder, beside=["sub/more.py"])


def test_a_linked_folder_is_refused_even_if_its_files_match(folder):
    manifests.write(folder, NAMES)
    (folder / "sub").rename(folder.parent / "moved")
    (folder / "sub").symlink_to(folder.parent / "moved")
    with pytest.raises(AlteredFile, match="link"):
        manifests.check(folder)


UNSAFE = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "",
    ".",
    "./a",
    "a//b",
    "a/",
    "a\\..\\b",
    "C:x",
    "a\0b",
    "manifest.json",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_path_out_of_the_folder_is_refused_when_building_and_when_reading(folder, name):
    with pytest.raises(ValueError, match="not a path inside"):
        manifests.build(folder, [name])
    entry = {"bytes": 0, "sha256": "0" * 64}
    listed = {"about": {}, "files": {name: entry}}
    blob = json.dumps(listed, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    with pytest.raises(AlteredFile, match="not a path inside"):
        Manifest.decode(blob)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"[]",
        b'{"files":{}}',
        b'{"about":{},"files":[]}',
        b'{"about":{},"files":{"a":{"bytes":-1,"sha256":"00"}}}',
        b'{"about":{},"files":{"a":{"bytes":true,"sha256":"' + b"0" * 64 + b'"}}}',
        b'{"about":{},"files":{}}\n',
        b'{"about":{"x":0.5},"files":{}}',
    ],
)
def test_what_is_not_a_canonical_manifest_is_refused(blob):
    with pytest.raises(AlteredFile, match="not a manifest"):
        Manifest.decode(blob)


def test_no_manifest_and_a_boundless_manifest_are_refused(folder):
    with pytest.raises(AlteredFile, match=r"manifest\.json cannot be read"):
        manifests.check(folder)
    (folder / "manifest.json").write_bytes(bytes(5 * 2**20))
    with pytest.raises(AlteredFile, match="larger than any manifest"):
        manifests.check(folder)
