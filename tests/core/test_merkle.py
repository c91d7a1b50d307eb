"""Merkle trees against RFC 6962's vectors, its recursive definition, and pymerkle."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.merkle import (
    EMPTY_ROOT,
    Nodes,
    Tree,
    leaf_hash,
    levels_of,
    node_hash,
    peaks_of,
    prove_consistency,
    prove_inclusion,
    range_root,
    root_of_path,
    verify_consistency,
    verify_inclusion,
)

# The entries and hashes of the reference tests of certificate-transparency
# (cpp/merkletree/merkle_tree_test.cc), which RFC 6962's log servers are held to.
ENTRIES = [
    bytes.fromhex(it)
    for it in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
GROWN = {
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
SIZES = st.integers(1, 300)


def recursive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word by word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(recursive_root(leaves[:split]), recursive_root(leaves[split:]))


def some_leaves(count: int) -> list[bytes]:
    """Return hashes of different entries."""
    return [leaf_hash(b"%d" % number) for number in range(count)]


def nodes_of(leaves: Sequence[bytes]) -> Nodes:
    """Return a source of nodes that has all of them at hand."""
    levels = levels_of(leaves)
    return lambda level, index: levels[level][index]


@pytest.mark.parametrize("count", range(9))
def test_rfc_6962_roots(count: int) -> None:
    """The roots of the reference tests, and of nothing."""
    tree = Tree()
    for entry in ENTRIES[:count]:
        tree.append(leaf_hash(entry))
    expected = bytes.fromhex(ROOTS[count - 1]) if count else EMPTY_ROOT
    assert expected == tree.root()


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_rfc_6962_paths(index: int, size: int) -> None:
    """The audit paths of the reference tests."""
    leaves = [leaf_hash(it) for it in ENTRIES]
    path = prove_inclusion(index, size, nodes_of(leaves))
    assert PATHS[index, size] == [it.hex() for it in path]


@pytest.mark.parametrize(("old", "new"), GROWN)
def test_rfc_6962_consistency(old: int, new: int) -> None:
    """The consistency proofs of the reference tests."""
    leaves = [leaf_hash(it) for it in ENTRIES]
    path = prove_consistency(old, new, nodes_of(leaves))
    assert GROWN[old, new] == [it.hex() for it in path]


@given(st.integers(0, 300))
def test_a_tree_has_the_root_of_the_definition(count: int) -> None:
    """Law: appending leaf by leaf, by subtrees and from peaks gives MTH."""
    leaves = some_leaves(count)
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    node = nodes_of(leaves)
    assert recursive_root(leaves) == tree.root() == range_root(0, count, node)
    assert peaks_of(count, node) == list(tree.peaks)
    by_fours = Tree()
    for index in range(count // 4):
        by_fours.append_subtree(node(2, index), 2)
    for leaf in leaves[by_fours.size :]:
        by_fours.append(leaf)
    assert by_fours.copy().root() == tree.root()


@given(SIZES, st.data())
def test_an_inclusion_proof_verifies_for_its_leaf_alone(
    size: int, data: st.DataObject
) -> None:
    """Law: made proofs verify; not for another leaf, place, size, root or path."""
    leaves = some_leaves(size)
    index = data.draw(st.integers(0, size - 1))
    root = recursive_root(leaves)
    path = prove_inclusion(index, size, nodes_of(leaves))
    assert verify_inclusion(leaves[index], index, size, path, root)
    assert not verify_inclusion(leaf_hash(b"other"), index, size, path, root)
    assert not verify_inclusion(leaves[index], index, size, path, leaf_hash(b""))
    assert not verify_inclusion(leaves[index], index, size, [*path, root], root)
    assert not verify_inclusion(leaves[index], index, size, path[:-1], root) or not path
    other = data.draw(st.integers(-1, size + 1).filter(lambda it: it != index))
    assert not verify_inclusion(leaves[index], other, size, path, root)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        spoilt = [*path[:at], leaf_hash(path[at]), *path[at + 1 :]]
        assert not verify_inclusion(leaves[index], index, size, spoilt, root)


@given(SIZES, st.data())
def test_a_consistency_proof_verifies_for_its_trees_alone(
    new: int, data: st.DataObject
) -> None:
    """Law: made proofs verify; not for other roots, sizes or paths."""
    leaves = some_leaves(new)
    old = data.draw(st.integers(0, new))
    first, second = recursive_root(leaves[:old]), recursive_root(leaves)
    path = prove_consistency(old, new, nodes_of(leaves))
    assert verify_consistency(old, new, first, second, path)
    wrong = leaf_hash(b"other")
    assert not verify_consistency(old, new, wrong, second, path)
    assert not verify_consistency(old, new, first, second, [*path, wrong])
    if old:
        assert not verify_consistency(old, new, first, wrong, path)
    if path:
        assert not verify_consistency(old, new, first, second, path[:-1])
        at = data.draw(st.integers(0, len(path) - 1))
        spoilt = [*path[:at], wrong, *path[at + 1 :]]
        assert not verify_consistency(old, new, first, second, spoilt)


@given(st.integers(2, 200), st.data())
def test_a_history_that_was_rewritten_has_no_proof(
    new: int, data: st.DataObject
) -> None:
    """No proof that a changed log can make leads to the root that was seen before."""
    leaves = some_leaves(new)
    old = data.draw(st.integers(1, new))
    at = data.draw(st.integers(0, old - 1))
    seen = recursive_root(leaves[:old])
    leaves[at] = leaf_hash(b"rewritten")
    path = prove_consistency(old, new, nodes_of(leaves))
    assert not verify_consistency(old, new, seen, recursive_root(leaves), path)


@given(
    st.integers(-2, 2**64),
    st.integers(-2, 2**64),
    st.lists(st.binary(min_size=32, max_size=32), max_size=70),
)
def test_proofs_of_strangers_end(one: int, two: int, path: Sequence[bytes]) -> None:
    """Whatever is said to be a proof is judged, and proves nothing by chance."""
    assert not verify_inclusion(bytes(32), one, two, path, bytes(32))
    verify_consistency(one, two, bytes(32), bytes(32), path)


def test_what_is_not_there_is_not_proven() -> None:
    """Leaves and sizes beyond the tree are errors of the caller."""
    node = nodes_of(some_leaves(4))
    with pytest.raises(ValueError, match="not among"):
        prove_inclusion(4, 4, node)
    with pytest.raises(ValueError, match="beginning"):
        prove_consistency(5, 4, node)
    with pytest.raises(ValueError, match="not among"):
        root_of_path(bytes(32), 4, 4, [])
    with pytest.raises(ValueError, match="peaks"):
        Tree(3, [bytes(32)])
    with pytest.raises(ValueError, match="no place"):
        Tree(1, [bytes(32)]).append_subtree(bytes(32), 1)


@given(st.integers(1, 70), st.data())
def test_an_independent_library_agrees(size: int, data: st.DataObject) -> None:
    """Law: pymerkle, which nobody here wrote, has the same roots and proofs."""
    pymerkle = pytest.importorskip("pymerkle")
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    entries = [b"%d" % number for number in range(size)]
    for entry in entries:
        theirs.append_entry(entry)
    leaves = [leaf_hash(it) for it in entries]
    node = nodes_of(leaves)
    assert theirs.get_root() == range_root(0, size, node)
    index = data.draw(st.integers(0, size - 1))
    proof = theirs.prove_inclusion(index + 1, size)
    pymerkle.verify_inclusion(leaves[index], range_root(0, size, node), proof)
    ours = prove_inclusion(index, size, node)
    # Theirs begins with the leaf itself.
    assert [leaves[index], *ours] == proof.path
