"""Verify an evidence bundle with Python, `cryptography` and this one file; it is meant to be read.

::

    python -I standalone.py BUNDLE --key VKEY

BUNDLE is a directory or a zip. VKEY is the log's public key (name+id+key), from a source that
you trust: not from the bundle. Exit codes: 0 all of it holds, 1 something does not, 2 cannot
tell. The copy called verify.py in a bundle is by whoever made the bundle; take a release's.

1. There are exactly the files that a bundle has, and no links. Their SHA-256 digests are those
   in manifest.json, and its own is in manifest.sha256. A zip has one form: see `zip_of`.
2. ``checkpoint`` is a C2SP signed head, signed by the key, of the log and size in the manifest.
3. entries.jsonl holds the entries, ascending. Each has a C2SP tlog-proof with that very head,
   and its RFC 6962 inclusion proof gives the root in that head.
4. openings.jsonl, if it is there, shows values that entries are committed to. Each gives a
   commitment, SHA-256 of "checkrein/field/v1" LF salt value, that stands in its entry.

Then the log has vouched for each of these entries, at its index. report.json and the rest of the
manifest are the exporter's word. What was left out, and what the log says today, is not shown.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import json
import os
import re
import stat
import sys
import zipfile
from typing import Any

FORMAT = "checkrein-evidence/v1"
LARGEST = 1 << 30
MANIFEST = {"manifest.json", "manifest.sha256"}
FILES = {"entries.jsonl", "checkpoint", "key.vkey", "report.json", "verify.py", *MANIFEST}
OPENINGS = "openings.jsonl"
RECEIPT = re.compile(r"receipts/(0|[1-9][0-9]{0,17})\.tlog-proof")
LINE = re.compile(r'\{"index":(0|[1-9][0-9]{0,17}),"entry":"([A-Za-z0-9+/=]*)"\}')
HEAD = re.compile(rb"([^\n]+)\n(0|[1-9][0-9]{0,17})\n([^\n]+)\n")


class Bad(Exception):
    """The bundle does not show what it claims."""


class CannotTell(Exception):
    """There is no bundle, no key, or no way to look."""


def read_bundle(path: str) -> dict[str, bytes]:
    """Return the files of a bundle by name; any other file, or link, is refused."""
    if not os.path.isdir(path):
        return unzip(_read(path, LARGEST))
    files: dict[str, bytes] = {}
    left = LARGEST
    for folder in ("", "receipts/"):
        for found in os.listdir(os.path.join(path, folder)):
            name = folder + found
            mode = os.lstat(os.path.join(path, name)).st_mode
            if name == "receipts" and stat.S_ISDIR(mode):
                continue
            if not _is_name(name) or not stat.S_ISREG(mode):
                raise Bad(f"{name!a} does not belong in a bundle")
            files[name] = _read(os.path.join(path, name), left)
            left -= len(files[name])
    return files


def unzip(data: bytes) -> dict[str, bytes]:
    """Return the files in a zip, which is byte for byte what `zip_of` makes of them."""
    files: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == b"PK\3\4":
        start = at + 30 + int.from_bytes(data[at + 26 : at + 28], "little")
        name = data[at + 30 : start].decode("latin-1")
        if not _is_name(name):
            raise Bad(f"{name!a} does not belong in a bundle")
        at = start + int.from_bytes(data[at + 22 : at + 26], "little")
        files[name] = data[start:at]
    if zip_of(files) != data:
        raise Bad("this is no zip of the form that bundles have")
    return files


def zip_of(files: dict[str, bytes]) -> bytes:
    """Return the zip of *files*: sorted, undated, and stored, so that nothing can blow up."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in sorted(files):
            one = zipfile.ZipInfo(name)
            one.create_system, one.external_attr = 3, 0o100600 << 16
            made.writestr(one, files[name])
    return out.getvalue()


def check_bundle(files: dict[str, bytes], vkey: str) -> dict[str, Any]:
    """Return the manifest of a bundle that holds."""
    name, key_id, key = open_key(vkey)
    manifest = open_manifest(files)
    if files["key.vkey"] != f"{vkey}\n".encode():
        raise Bad("the bundle is of a log with another key than the given one")
    size, root = open_head(files["checkpoint"], name, key_id, key)
    if (manifest.get("origin"), manifest.get("size")) != (name, size):
        raise Bad("the manifest is about another head")
    indexes: list[int] = []
    entries: dict[int, bytes] = {}
    *lines, end = files["entries.jsonl"].decode("latin-1").split("\n")
    for line in lines:
        found = LINE.fullmatch(line)
        if end or found is None or int(found[1]) <= (indexes[-1] if indexes else -1):
            raise Bad("entries.jsonl cannot be read")
        index, leaf = int(found[1]), hashlib.sha256(b"\0" + _decode(found[2])).digest()
        receipt = files.get(f"receipts/{index}.tlog-proof", b"")
        if root_from(leaf, index, size, open_receipt(receipt, index, files["checkpoint"])) != root:
            raise Bad(f"the receipt of entry {index} does not hold")
        indexes.append(index)
        entries[index] = _decode(found[2])
    check_openings(files.get(OPENINGS), entries)
    count = len(FILES) + len(indexes) + (OPENINGS in files)
    named = manifest.get("entries") == indexes and len(files) == count
    if not indexes or not named:
        raise Bad("the entries are not those of the manifest, or of the receipts")
    return manifest


def check_openings(data: bytes | None, entries: dict[int, bytes]) -> None:
    """Check that every value that is shown is one that its entry is committed to."""
    if data is not None and data[-1:] != b"\n":
        raise Bad(f"{OPENINGS} cannot be read")
    for line in (data or b"").split(b"\n")[:-1]:
        try:
            one = json.loads(line.decode())
            salt, value = bytes.fromhex(one["salt"]), one["value"].encode()
            commitment = _sha256(b"checkrein/field/v1\n" + salt + value)
            entry = entries[one["index"]]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise Bad(f"{OPENINGS} cannot be read") from None
        if one.keys() != {"index", "commitment", "salt", "value"} or len(salt) != 16:
            raise Bad(f"{OPENINGS} cannot be read")
        held = f'{{"commitment":"{commitment}","size":{len(value)}}}'.encode()
        if one["commitment"] != commitment or held not in entry:
            raise Bad(f"a value in {OPENINGS} is not one of entry {one['index']}")


def open_manifest(files: dict[str, bytes]) -> dict[str, Any]:
    """Return the manifest, if it is written in its one form and all digests hold."""
    data = files.get("manifest.json", b"")
    if not files.keys() >= FILES:
        raise Bad("files are missing")
    if files["manifest.sha256"] != f"{_sha256(data)}  manifest.json\n".encode():
        raise Bad("manifest.json is not the one in manifest.sha256")
    try:
        manifest = json.loads(data)
        one = json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n" == data
    except (ValueError, RecursionError):
        one, manifest = False, None
    if not one or type(manifest) is not dict:
        raise Bad("manifest.json cannot be read")
    if manifest.get("format") != FORMAT:
        raise CannotTell(f"the bundle is not {FORMAT}: use a later verifier")
    if manifest.get("files") != {one: _sha256(files[one]) for one in files.keys() - MANIFEST}:
        raise Bad("the files are not those of the manifest")
    return manifest


def open_key(vkey: str) -> tuple[str, bytes, bytes]:
    """Return name, id and bytes of a C2SP verifier key (Ed25519)."""
    name, _, rest = vkey.partition("+")
    with contextlib.suppress(Bad, ValueError):
        key = _decode(rest[9:])
        key_id = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
        if name and len(key) == 33 and key[0] == 1 and rest[:9] == key_id.hex() + "+":
            return name, key_id, key[1:]
    raise CannotTell("--key is no Ed25519 verifier key (name+id+key)")


def open_head(note: bytes, name: str, key_id: bytes, key: bytes) -> tuple[int, bytes]:
    """Return size and root of a C2SP checkpoint of that name, which the key has signed."""
    # Imported here: where it is missing, nothing can be told.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

    text, _, tail = note.rpartition(b"\n\n")
    start, signed = f"\u2014 {name} ", False
    for line in tail.decode(errors="replace").split("\n"):
        signature = _decode(line[len(start) :]) if line.startswith(start) else b""
        if signature[:4] == key_id:
            try:
                ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature[4:], text + b"\n")
            except InvalidSignature:
                raise Bad("the signature under the head is wrong") from None
            signed = True
    head = HEAD.fullmatch(text + b"\n")
    if not signed or head is None or head[1] != name.encode():
        raise Bad("the head is not one of this log, signed by the given key")
    return int(head[2]), _decode(head[3].decode("latin-1"))


def open_receipt(receipt: bytes, index: int, note: bytes) -> list[bytes]:
    """Return the hashes in a C2SP tlog-proof, which is for that index and that very head."""
    start, end = b"c2sp.org/tlog-proof@v1\nindex %d\n" % index, b"\n" + note
    if not receipt.startswith(start) or not receipt.endswith(b"\n" + end):
        raise Bad(f"the receipt of entry {index} is of another entry, or another head")
    proof = receipt[len(start) : -len(end)].decode("latin-1").split("\n")[:-1]
    return [_decode(line) for line in proof]


def root_from(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes | None:
    """Return the root that an inclusion proof gives (RFC 9162 section 2.1.3.2)."""
    if index >= size or any(len(one) != 32 for one in (leaf, *proof)):
        return None
    here, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if here & 1 or here == last:
            computed = hashlib.sha256(b"\1" + sibling + computed).digest()
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            computed = hashlib.sha256(b"\1" + computed + sibling).digest()
        here, last = here >> 1, last >> 1
    return None if last else computed


def _is_name(name: str) -> bool:
    return name in FILES or name == OPENINGS or RECEIPT.fullmatch(name) is not None


def _read(path: str, largest: int) -> bytes:
    with open(path, "rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise CannotTell(f"the bundle has more than {LARGEST} bytes")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _decode(text: str) -> bytes:
    with contextlib.suppress(ValueError):
        data = base64.b64decode(text, validate=True)
        if base64.b64encode(data).decode() == text:
            return data
    raise Bad(f"{text[:80]!a} is not base64, or not its one spelling")


def main() -> int:
    """Verify the bundle that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Verify an evidence bundle of a checkrein log.")
    parser.add_argument("bundle", help="a directory or a zip")
    parser.add_argument("--key", required=True, metavar="VKEY", help="the log's public key")
    given = parser.parse_args()
    try:
        files = read_bundle(given.bundle)
        manifest = check_bundle(files, given.key)
    except Bad as error:
        sys.stdout.write(f"BAD: {error}\n")
        return 1
    except (CannotTell, ImportError, OSError, ValueError) as error:
        sys.stdout.write(f"cannot tell: {str(error)!a}\n")
        return 2
    sys.stdout.write(
        f"good: {len(manifest['entries'])} of the first {manifest['size']} entries of "
        f"{manifest['origin']!a}\nmanifest.json has the SHA-256 {_sha256(files['manifest.json'])}\n"
        "not shown: what was left out, and what the log says today\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
