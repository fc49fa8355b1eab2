"""Known answers for signatures and rosters: tests/vectors/signatures.json, written by the slow implementation.

`python tests/identity/test_signature_vectors.py` writes the file anew, the same to the byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
import slow_ecdsa as slow

from partbook import errors
from partbook.identity.keys import IdentityKey, PublicIdentity
from partbook.identity.roster import Roster

VECTORS = Path(__file__).parent.parent / "vectors" / "signatures.json"
PRIVATE = {
    name: int.from_bytes(hashlib.sha256(f"a key for tests: {name}".encode()).digest(), "big") % slow.N
    for name in ("coordinator", "north", "south", "east", "notary", "stranger")
}
PUBLIC = {name: slow.times(private, slow.G) for name, private in PRIVATE.items()}
RELEASE, ROSTER = "partbook/v1/release", "partbook/v1/roster"


def signatures() -> list[dict[str, str]]:
    message = "Vier Häuser, ein Buch".encode()
    r, s = slow.sign(PRIVATE["north"], slow.bound(RELEASE, message))
    good = slow.der(r, s)
    flipped = bytearray(good)
    flipped[20] ^= 1
    bare = slow.der(*slow.sign(PRIVATE["north"], message))
    long_form = b"\x30\x81" + good[1:]
    padded = slow.der_integer(r)
    padded = b"\x02" + bytes([padded[1] + 1]) + b"\0" + padded[2:]
    body = padded + slow.der_integer(s)

    def case(name: str, expect: str, **other: object) -> dict[str, str]:
        fields = {"public": "north", "domain": RELEASE, "message": message, "signature": good, **other}
        return {
            "name": name,
            "public": slow.pem(PUBLIC[fields["public"]]),
            "domain": fields["domain"],
            "message": bytes(fields["message"]).hex(),
            "signature": bytes(fields["signature"]).hex(),
            "expect": expect,
        }

    empty = slow.der(*slow.sign(PRIVATE["north"], slow.bound(RELEASE, b"")))
    return [
        case("a signature by its key for its domain", "success"),
        case("over the empty message", "success", message=b"", signature=empty),
        case("with n - s for s, which ECDSA allows", "success", signature=slow.der(r, slow.N - s)),
        case("for another domain", "BadSignature", domain=ROSTER),
        case("for a longer domain that takes a byte of the message", "BadSignature", domain="partbook/v1/releasev"),
        case("by another key", "BadSignature", public="south"),
        case("with one bit flipped in the signature", "BadSignature", signature=flipped),
        case("with one bit flipped in the message", "BadSignature", message=b"W" + message[1:]),
        case("over the message without its domain", "BadSignature", signature=bare),
        case("with the DER truncated by a byte", "BadSignature", signature=good[:-1]),
        case("with a byte after the DER", "BadSignature", signature=good + b"\0"),
        case("with the DER's length in the long form", "BadSignature", signature=long_form),
        case("with r padded by a zero", "BadSignature", signature=b"\x30" + bytes([len(body)]) + body),
        case("with r and s exchanged", "BadSignature", signature=slow.der(s, r)),
        case("with r = 0 and s = 0", "BadSignature", signature=slow.der(0, 0)),
        case("with r = n", "BadSignature", signature=slow.der(slow.N, s)),
        case("with s + n for s", "BadSignature", signature=slow.der(r, s + slow.N)),
        case("that is empty", "BadSignature", signature=b""),
    ]


def receiving(name: str) -> str:
    raw = bytearray(hashlib.sha256(f"a receiving key for tests: {name}".encode()).digest())
    raw[31] &= 0x3F
    return base64.b64encode(raw).decode()


def roster(signed_by: dict[str, str] | None = None, sign_as: dict[str, object] | None = None, **edits: object) -> dict:
    """A roster's fields, signed by hand. `sign_as`: fields at the time of signing; `edits`: fields in the file."""
    fields: dict[str, object] = {
        "protocol": "partbook/v1",
        "federation": "Vier Häuser",
        "version": 3,
        "coordinator": slow.pem(PUBLIC["coordinator"]),
        "members": [
            {"name": name, "identity": slow.pem(PUBLIC[name]), "receiving": receiving(name)}
            for name in ("east", "north", "south")
        ],
        "custodian": {"name": "notary", "identity": slow.pem(PUBLIC["notary"]), "seal_key": "5e" * 32},
    }
    domain = edits.pop("domain", ROSTER)
    file = fields | edits
    covered = fields | (file if sign_as is None else sign_as)
    blob = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signers = signed_by or {name: name for name in ("coordinator", "east", "north", "south", "notary")}
    made = {
        party: slow.der(*slow.sign(PRIVATE[signer], slow.bound(str(domain), blob))) for party, signer in signers.items()
    }
    return {"fields": file, "signatures": made, "canonical": blob}


def toml(made: dict) -> str:
    fields = made["fields"]
    lines = [
        f'{key} = "{fields[key]}"' if isinstance(fields[key], str) else f"{key} = {fields[key]}"
        for key in fields
        if key not in ("coordinator", "members", "custodian")
    ]
    lines.append(f'coordinator = """\n{fields["coordinator"]}"""')
    tables = [("[[members]]", member) for member in fields["members"]]
    if fields["custodian"]:
        tables.append(("[custodian]", fields["custodian"]))
    for heading, table in tables:
        lines += [heading, *(f'{key} = """\n{value}"""' for key, value in table.items())]
    lines += ["[signatures]", *(f'"{n}" = "{base64.b64encode(s).decode()}"' for n, s in made["signatures"].items())]
    return "\n".join(lines) + "\n"


def spoken(digest: str) -> str:
    number, digits = int(digest, 16), ""
    for _ in range(60):
        number, digit = divmod(number, 10)
        digits = str(digit) + digits
    return " ".join(digits[i : i + 5] for i in range(0, 60, 5))


def rosters() -> list[dict[str, str]]:
    all_of_them = {name: name for name in ("coordinator", "east", "north", "south", "notary")}
    members = roster()["fields"]["members"]
    without = {name: name for name in all_of_them if name != "east"}
    no_custodian = {name: name for name in all_of_them if name != "notary"}
    twice = [*members, {**members[1], "name": "west"}]
    cases = [
        ("signed by all", "success", roster()),
        ("without a custodian, signed by all", "success", roster(no_custodian, custodian=None)),
        ("one signature forged by a stranger", "UnsignedRoster", roster({**all_of_them, "north": "stranger"})),
        ("one signature missing", "UnsignedRoster", roster(without)),
        ("the custodian's signature missing", "UnsignedRoster", roster(no_custodian)),
        ("two signatures exchanged", "UnsignedRoster", roster({**all_of_them, "north": "east", "east": "north"})),
        ("a signature of somebody who is not in it", "UnsignedRoster", roster({**all_of_them, "west": "stranger"})),
        ("signed for another domain", "UnsignedRoster", roster(domain=RELEASE)),
        ("signatures of another version", "UnsignedRoster", roster(sign_as={"version": 2})),
        ("a member's receiving key swapped after signing", "UnsignedRoster", roster(
            sign_as={}, members=[members[0], {**members[1], "receiving": receiving("stranger")}, members[2]])),
        ("a member added after signing", "UnsignedRoster", roster(sign_as={}, members=[*members, {
            "name": "west", "identity": slow.pem(PUBLIC["stranger"]), "receiving": receiving("west")}])),
        ("one name twice", "DuplicateMember", roster(members=[*members, {
            "name": "North", "identity": slow.pem(PUBLIC["stranger"]), "receiving": receiving("west")}])),
        ("one key under two names", "DuplicateMember", roster({**all_of_them, "west": "north"}, members=twice)),
        ("two members only", "ConfigError", roster(without, members=members[1:])),
        ("a field that no signature covers", "ConfigError", roster(sign_as={}, threshold=1)),
    ]  # fmt: skip
    made = []
    for name, expect, whole in cases:
        digest = hashlib.sha256(ROSTER.encode() + whole["canonical"]).hexdigest()
        found = {"name": name, "toml": toml(whole), "expect": expect}
        made.append(found | ({"hash": digest, "fingerprint": spoken(digest)} if expect == "success" else {}))
    return made


def document() -> str:
    about = (
        "ECDSA P-256 with SHA-256 and RFC 6979 nonces over `length of domain, 2 bytes || domain || message`. "
        "`expect` is success, or the error that the case must end in."
    )
    found = {"about": about, "signatures": signatures(), "rosters": rosters()}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def cases(kind: str) -> list:
    if not VECTORS.exists():  # about to be written
        return []
    return [pytest.param(case, id=case["name"]) for case in json.loads(VECTORS.read_text("utf-8"))[kind]]


@pytest.mark.parametrize("case", cases("signatures"))
def test_a_signature_is_taken_or_refused_as_its_vector_says(case):
    public = PublicIdentity(case["public"].encode())
    arguments = bytes.fromhex(case["message"]), bytes.fromhex(case["signature"]), case["domain"]
    if case["expect"] == "success":
        public.verify(*arguments)
    else:
        with pytest.raises(getattr(errors, case["expect"])) as refusal:
            public.verify(*arguments)
        assert type(refusal.value).__name__ == case["expect"]


@pytest.mark.parametrize("case", cases("signatures"))
def test_the_slow_implementation_agrees_with_each_vector(case):
    (point,) = (p for p in PUBLIC.values() if slow.pem(p) == case["public"])
    message = slow.bound(case["domain"], bytes.fromhex(case["message"]))
    assert slow.verify(point, message, bytes.fromhex(case["signature"])) == (case["expect"] == "success")


@pytest.mark.parametrize("case", cases("rosters"))
def test_a_roster_is_taken_or_refused_as_its_vector_says(case, tmp_path):
    path = tmp_path / "roster.toml"
    path.write_text(case["toml"], encoding="utf-8")
    if case["expect"] == "success":
        found = Roster.read(path)
        assert (found.hash, found.fingerprint) == (case["hash"], case["fingerprint"])
    else:
        with pytest.raises(getattr(errors, case["expect"])) as refusal:
            Roster.read(path)
        assert type(refusal.value).__name__ == case["expect"]


def test_the_vectors_are_what_the_slow_implementation_writes():
    assert VECTORS.read_text("utf-8") == document()


def test_the_slow_implementation_signs_as_rfc_6979_says():
    # RFC 6979, appendix A.2.5, SHA-256.
    private = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    assert slow.nonce(private, b"sample") == 0xA6E3C57DD01ABE90086538398355DD4C3B17AA873382B0F24D6129493D8AAD60
    assert slow.sign(private, b"sample") == (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )
    assert slow.sign(private, b"test") == (
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    )


@pytest.mark.parametrize("message", [b"", b"a", bytes(1000)])
def test_what_we_sign_the_slow_implementation_verifies(message):
    key = IdentityKey.generate()
    numbers = key._private.public_key().public_numbers()
    assert slow.pem((numbers.x, numbers.y)).encode() == key.public.pem
    assert slow.verify((numbers.x, numbers.y), slow.bound(RELEASE, message), key.sign(message, RELEASE))
    assert not slow.verify((numbers.x, numbers.y), slow.bound(ROSTER, message), key.sign(message, RELEASE))


if __name__ == "__main__":
    VECTORS.write_text(document(), encoding="utf-8")
