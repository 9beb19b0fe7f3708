"""The tree, against vectors made by others and against itself."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.errors import MisuseError, TamperedError
from checkrein.log import merkle, standalone

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "merkle" / "testdata"


# The eight entries over whose trees the vectors were made.
ENTRIES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]


def vectors(kind, count=98):
    if not VECTORS.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"the vectors are missing at {VECTORS}")
        pytest.skip(f"no vectors at {VECTORS}")
    files = sorted((VECTORS / kind).rglob("*.json"))
    assert len(files) == count
    return [(str(path), json.loads(path.read_text())) for path in files]


def unbase64(text):
    return base64.b64decode(text or "")


def accepts(check, *args):
    try:
        check(*args)
    except TamperedError:
        return False
    return True


def reader(leaves):
    return lambda height, index: merkle.root_of(leaves[index << height : (index + 1) << height])


def test_inclusion_vectors():
    """All 98 inclusion proofs that others made are judged as they say."""
    for name, v in vectors("inclusion"):
        proof = [unbase64(p) for p in v["proof"] or []]
        leaf, root = unbase64(v["leafHash"]), unbase64(v["root"])
        good = accepts(merkle.check_inclusion, v["leafIdx"], v["treeSize"], leaf, proof, root)
        assert good is not v["wantErr"], name
        alone = standalone.root_from(leaf, v["leafIdx"], v["treeSize"], proof) == root
        assert alone is good, name


def test_consistency_vectors():
    """All 98 consistency proofs agree, but for three that start at size 0, where rules differ."""
    differ = 0
    for name, v in vectors("consistency"):
        proof = [unbase64(p) for p in v["proof"] or []]
        roots = unbase64(v["root1"]), unbase64(v["root2"])
        good = accepts(merkle.check_consistency, v["size1"], v["size2"], *roots, proof)
        if good is v["wantErr"]:
            assert v["size1"] == 0, name
            differ += 1
    assert differ <= 3


def test_subtree_vectors_that_begin_at_the_first_leaf():
    """A subtree that begins at the first leaf is an older tree: 203 more vectors hold for those."""
    judged = 0
    for name, v in vectors("subtreeinclusion", 204):
        if v.get("start", 0) == 0:
            proof = [unbase64(p) for p in v["proof"] or []]
            leaf, root = unbase64(v["leafHash"]), unbase64(v["root"])
            good = accepts(merkle.check_inclusion, v["leafIdx"], v["end"], leaf, proof, root)
            assert good is not v["wantErr"], name
            judged += 1
    for name, v in vectors("subtreeconsistency", 118):
        if v.get("start", 0) == 0:
            proof = [unbase64(p) for p in v["proof"] or []]
            roots = unbase64(v["root1"]), unbase64(v["root2"])
            good = accepts(merkle.check_consistency, v["end"], v["size"], *roots, proof)
            assert good is not v["wantErr"], name
            judged += 1
    assert judged == 203


def test_roots_and_proofs_are_those_of_the_vectors():
    """Over the same entries this tree has the same roots, and makes the same proofs."""
    leaves = merkle.leaf_hashes(bytes.fromhex(entry) for entry in ENTRIES)
    judged = 0
    for name, v in [*vectors("inclusion"), *vectors("consistency")]:
        if Path(name).name != "happy-path.json" or "single-entry" in name:
            continue
        size = v.get("treeSize") or v["size2"]
        assert merkle.root_of(leaves[:size]) == unbase64(v.get("root") or v["root2"]), name
        if "leafIdx" in v:
            made = merkle.prove_inclusion(v["leafIdx"], size, reader(leaves))
        else:
            assert merkle.root_of(leaves[: v["size1"]]) == unbase64(v["root1"]), name
            made = merkle.prove_consistency(v["size1"], size, reader(leaves))
        assert made == [unbase64(p) for p in v["proof"] or []], name
        judged += 1
    assert judged == 10


def test_empty_tree():
    """The empty tree has the root that RFC 6962 gives it."""
    assert merkle.Frontier().root().hex().startswith("e3b0c44298fc1c14")


@given(st.integers(1, 70), st.data())
def test_proofs_prove_and_nothing_else_does(size, data):
    """Each proof made is accepted; shortened, lengthened, or for another place it is refused."""
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(size)]
    root, read = merkle.root_of(leaves), reader(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.prove_inclusion(index, size, read)
    merkle.check_inclusion(index, size, leaves[index], proof, root)
    others = [[*proof, root]] + ([proof[:-1]] if proof else [])
    assert not any(
        accepts(merkle.check_inclusion, index, size, leaves[index], p, root) for p in others
    )
    other = data.draw(st.integers(0, size + 1))
    if other != index:
        assert not accepts(merkle.check_inclusion, other, size, leaves[index], proof, root)
    old = data.draw(st.integers(0, size))
    old_root = merkle.root_of(leaves[:old])
    proof = merkle.prove_consistency(old, size, read)
    merkle.check_consistency(old, size, old_root, root, proof)
    for wrong in [[*proof, root]] + ([proof[1:]] if proof else []):
        assert not accepts(merkle.check_consistency, old, size, old_root, root, wrong)
    if 0 < old < size:
        assert not accepts(merkle.check_consistency, old, size, root, old_root, proof)


@given(st.integers(2, 70), st.data())
def test_a_node_is_no_leaf_and_no_smaller_tree(size, data):
    """A hash from within the tree, with the rest of a proof, proves no leaf and no older tree."""
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(size)]
    root, read = merkle.root_of(leaves), reader(leaves)
    proof = merkle.prove_inclusion(0, size, read)
    height = data.draw(st.integers(1, len(proof)))
    node = merkle.root_of(leaves[: 1 << height])
    assert not accepts(merkle.check_inclusion, 0, size, node, proof[height:], root)
    assert not accepts(merkle.check_consistency, 1, size, node, root, proof[height:])


@given(st.integers(2, 70), st.data())
def test_a_proof_of_consistency_is_about_both_roots(size, data):
    """With any other old root, or any other new one, a proof of consistency is refused."""
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(size)]
    old = data.draw(st.integers(1, size - 1))
    roots = [merkle.root_of(leaves[:old]), merkle.root_of(leaves)]
    proof = merkle.prove_consistency(old, size, reader(leaves))
    assert accepts(merkle.check_consistency, old, size, *roots, proof)
    for wrong in (merkle.EMPTY_ROOT, merkle.leaf_hash(b"other"), b"", roots[0] + b"\0"):
        assert not accepts(merkle.check_consistency, old, size, wrong, roots[1], proof)
        assert not accepts(merkle.check_consistency, old, size, roots[0], wrong, proof)


@given(st.integers(0, 600), st.integers(0, 600))
def test_frontier_is_the_whole_tree(first, second):
    """A frontier fed in two goes, with complete subtrees, has the root of the definition."""

    def definition(hashes):
        if len(hashes) < 2:
            return hashes[0] if hashes else merkle.EMPTY_ROOT
        k = 1 << (len(hashes) - 1).bit_length() - 1
        return merkle.node_hash(definition(hashes[:k]), definition(hashes[k:]))

    leaves = [merkle.leaf_hash(i.to_bytes(2, "big")) for i in range(first + second)]
    tree = merkle.Frontier()
    for start in range(0, first - first % 256, 256):
        tree.push(merkle.fold(leaves[start : start + 256]), 8)
    tree.extend(leaves[tree.size :])
    assert tree.root() == definition(leaves)


def test_no_proof_of_what_is_not_there():
    """Asking for a proof outside the tree is the caller's mistake."""
    with pytest.raises(MisuseError):
        merkle.prove_inclusion(3, 3, reader([]))
    with pytest.raises(MisuseError):
        merkle.prove_consistency(4, 3, reader([]))


@pytest.mark.parametrize("before", [0, 1, 5, 63, 64, 65, 127, 256])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 191, 300])
def test_a_tree_is_the_same_however_its_leaves_come(before, count):
    """One by one, or many at a time in whole blocks."""
    leaves = [merkle.leaf_hash(str(number).encode()) for number in range(before + count)]
    one, many = merkle.Frontier(), merkle.Frontier()
    for leaf in leaves:
        one.push(leaf)
    many.extend(leaves[:before])
    many.extend(leaves[before:])
    assert (one.size, one.root()) == (many.size, many.root())


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_tree_grows_over_subtrees(start, more):
    """What `grow` gives for each leaf leads from any tree to any later one, in few steps."""
    leaves = [merkle.leaf_hash(b"%d" % number) for number in range(start + more)]
    whole, tree = merkle.Frontier(), merkle.Frontier()
    rows = [whole.grow(leaf) for leaf in leaves]
    tree.extend(leaves[:start])
    places = [*merkle.subtrees_between(start, start + more)]
    for height, index in places:
        tree.push(rows[((index + 1) << height) - 1][32 * height :][:32], height)
    assert tree.root() == whole.root() == merkle.root_of(leaves)
    assert len(places) <= 2 * more.bit_length()
