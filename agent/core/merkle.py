"""Merkle trees as RFC 6962 and RFC 9162 have them: append, prove, verify.

The rules this module keeps:
 * Leaves and nodes are hashed under different prefixes, so that neither can pass for
   the other.
 * A tree that grows keeps its peaks alone: the roots of its full subtrees, largest
   first. Who wants proofs brings a source of nodes.

Laws: ``Tree`` has the root of the recursive definition; every inclusion and every
consistency proof that is made verifies, and none of them for another leaf, place,
size or root.

Source: RFC 6962 section 2.1, RFC 9162 sections 2.1.3 and 2.1.4.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
MAX_LEVELS = 63  # a seq has 64 bits, and nobody lives to see the last one
# (level, index) -> root of the full subtree over [index << level, index + 1 << level).
Nodes = Callable[[int, int], bytes]


def leaf_hash(entry: bytes | memoryview) -> bytes:
    """Return the hash of an entry as a leaf.

    >>> leaf_hash(b"").hex()[:16]
    '6e340b9cffb37a98'
    """
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that grows at its right edge; it knows no more than its peaks.

    Args:
        size: Leaves so far.
        peaks: Roots of its full subtrees, largest first: one for each bit of ``size``.

    Raises:
        ValueError: There are not as many peaks as ``size`` has bits.
    """

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)
        if len(self._peaks) != size.bit_count():
            raise ValueError(f"{len(self._peaks)} peaks are not those of {size} leaves")

    @property
    def peaks(self) -> Sequence[bytes]:
        """Roots of its full subtrees, largest first."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add the hash of a leaf; amortised one more hash."""
        # As in binary counting: each trailing 1 of the size is a peak that is merged.
        carry, peaks = self.size, self._peaks
        while carry & 1:
            leaf = sha256(b"\x01" + peaks.pop() + leaf).digest()
            carry >>= 1
        peaks.append(leaf)
        self.size += 1

    def append_subtree(self, root: bytes, level: int) -> None:
        """Add the root of a full subtree of 2^level leaves.

        Raises:
            ValueError: The size is no multiple of 2^level.
        """
        if self.size & ((1 << level) - 1):
            raise ValueError(f"no place for 2^{level} leaves after {self.size}")
        carry = self.size >> level
        while carry & 1:
            root = node_hash(self._peaks.pop(), root)
            carry >>= 1
        self._peaks.append(root)
        self.size += 1 << level

    def root(self) -> bytes:
        """Return the tree's root."""
        return fold_peaks(self._peaks)

    def copy(self) -> "Tree":
        """Return another tree that is the same so far."""
        return Tree(self.size, self._peaks)


def fold_peaks(peaks: Sequence[bytes]) -> bytes:
    """Return the root over full subtrees, largest first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def levels_of(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Return all full subtrees over leaves: level 0 first, each from the left."""
    levels = [list(leaves)]
    while len(below := levels[-1]) > 1:
        pairs = zip(below[::2], below[1::2], strict=False)
        levels.append([sha256(b"\x01" + a + b).digest() for a, b in pairs])
    return levels


def peaks_of(size: int, node: Nodes) -> list[bytes]:
    """Return the peaks of a tree of ``size`` leaves."""
    return list(_full_subtrees(0, size, node))


def range_root(low: int, high: int, node: Nodes) -> bytes:
    """Return the root over leaves ``low`` to ``high`` - 1, as a subtree has it.

    ``low`` is where a subtree may begin: a multiple of the smallest power of two that
    is no less than ``high - low``.
    """
    return fold_peaks(list(_full_subtrees(low, high, node)))


def prove_inclusion(index: int, size: int, node: Nodes) -> list[bytes]:
    """Return the path of leaf ``index`` in the tree of ``size`` leaves, leaf first.

    Raises:
        ValueError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not among {size}")
    path = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(range_root(middle, high, node))
            high = middle
        else:
            path.append(range_root(low, middle, node))
            low = middle
    return path[::-1]


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that a path leads to (RFC 9162, 2.1.3.2).

    Raises:
        ValueError: The path is no path of this leaf in a tree of this size.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not among {size}")
    place, last, found = index, size - 1, leaf
    for step in path:
        if not last:
            raise ValueError("the path is too long")
        if place & 1 or place == last:
            found = node_hash(step, found)
        else:
            found = node_hash(found, step)
        place, last = _climb(place, last)
    if last:
        raise ValueError("the path is too short")
    return found


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> bool:
    """Whether ``path`` proves that a leaf is in the tree with this root."""
    try:
        return root_of_path(leaf, index, size, path) == root
    except ValueError:
        return False


def prove_consistency(old: int, new: int, node: Nodes) -> list[bytes]:
    """Return the proof that ``new`` leaves begin with ``old`` of them.

    Raises:
        ValueError: ``old`` is more than ``new``, or negative.
    """
    if not 0 <= old <= new:
        raise ValueError(f"{old} leaves cannot be the beginning of {new}")
    if old in (0, new):
        return []
    path = []
    low, high, whole = 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(range_root(middle, high, node))
            high = middle
        else:
            path.append(range_root(low, middle, node))
            low, whole = middle, False
    if not whole:
        path.append(range_root(low, high, node))
    return path[::-1]


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether ``path`` proves that one tree grew into the other (RFC 9162, 2.1.4.2)."""
    if old == new:
        return not path and old_root == new_root
    if not 0 < old < new:
        return old == 0 and not path and old_root == EMPTY_ROOT
    steps = list(path) if old & (old - 1) else [old_root, *path]
    if not steps:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = steps[0]
    for step in steps[1:]:
        if not last:
            return False
        if place & 1 or place == last:
            before, after = node_hash(step, before), node_hash(step, after)
        else:
            after = node_hash(after, step)
        place, last = _climb(place, last)
    return not last and (before, after) == (old_root, new_root)


def _climb(place: int, last: int) -> tuple[int, int]:
    """Return where a node's parent with two children is, and the last node there."""
    if place == last:
        # At the right edge a node without a sibling is its own parent.
        while place and not place & 1:
            place, last = place >> 1, last >> 1
    return place >> 1, last >> 1


def _split(count: int) -> int:
    """Return the largest power of two below ``count``, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _full_subtrees(low: int, high: int, node: Nodes) -> Iterable[bytes]:
    """Yield the full subtrees over a range, largest first."""
    while low < high:
        level = (high - low).bit_length() - 1
        yield node(level, low >> level)
        low += 1 << level
