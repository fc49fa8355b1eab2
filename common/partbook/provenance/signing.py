"""Signed folders: `manifest.sig` over the manifest's bytes, and `signer.pem`, the key it verifies under.

The manifest names its signer's fingerprint, and that name is part of what is signed: without it, a second key
could be made that fits the same signature (see `partbook.identity.keys`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from partbook.errors import AlteredFile, BadSignature, UnusableKey
from partbook.identity.canonical import Json
from partbook.identity.keys import IdentityKey, PublicIdentity
from partbook.provenance import manifest as manifests
from partbook.provenance.manifest import MANIFEST, Manifest

SIGNATURE: Final = "manifest.sig"
SIGNER: Final = "signer.pem"
BESIDE: Final = (SIGNATURE, SIGNER)
RELEASE_DOMAIN: Final = "partbook/v1/release"


def sign_folder(
    folder: Path,
    names: Iterable[str],
    key: IdentityKey,
    *,
    about: Mapping[str, Json] | None = None,
    domain: str = RELEASE_DOMAIN,
) -> Manifest:
    """Write manifest.json over the named files, manifest.sig over the manifest, and signer.pem.

    Raises:
        AlteredFile: a named file is missing.
    """
    manifest = manifests.write(folder, names, {**(about or {}), "signer": key.public.fingerprint})
    (folder / SIGNATURE).write_bytes(key.sign(manifest.encode(), domain))
    (folder / SIGNER).write_bytes(key.public.pem)
    return manifest


def open_signed(
    folder: Path, *, signer: PublicIdentity | None, domain: str = RELEASE_DOMAIN
) -> tuple[Manifest, PublicIdentity]:
    """A folder's manifest, once its signature has verified; no file it lists is read yet.

    Args:
        folder: what was signed.
        signer: the key it must be signed with. None trusts the key in the folder: that proves the folder is
            whole, not whose it is, so show the fingerprint to someone who can compare it.
        domain: what the signature must have been made for.

    Raises:
        BadSignature: the signature, the manifest or signer.pem was altered, or the signer is not the one
            expected.
        AlteredFile: one of the three is missing, or a file lies there that the manifest does not list.
    """
    if not folder.is_dir():
        raise AlteredFile(f"{folder} is not a folder; give the path of an unpacked release.")
    blob = manifests.read_manifest_bytes(folder)
    signature, pem = _small(folder / SIGNATURE), _small(folder / SIGNER)
    try:
        found = PublicIdentity(pem)
    except UnusableKey as error:
        raise BadSignature(f"{folder / SIGNER} was altered: {error}") from error
    if signer is not None and found != signer:
        raise BadSignature(
            f"{folder / SIGNER} is {found.fingerprint}, not the signer you expect, {signer.fingerprint}; "
            "do not use this folder unless its maker confirms the new key."
        )
    try:
        found.verify(blob, signature, domain)
    except BadSignature as error:
        raise BadSignature(
            f"{folder / SIGNATURE} does not verify over {MANIFEST} for {domain} under the key in {SIGNER}: "
            "one of the three was altered. Fetch the folder again from its source."
        ) from error
    manifest = Manifest.decode(blob, folder / MANIFEST)
    if manifest.about.get("signer") != found.fingerprint:
        raise BadSignature(
            f"{folder / SIGNER} is not the key that {MANIFEST} names as its signer; someone put another in its place."
        )
    manifest.refuse_unlisted(folder, BESIDE)
    return manifest, found


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise AlteredFile(f"{path} cannot be read: {error.strerror}. Fetch the folder again.") from error
