"""A board's own copy of a model: who may mark it, and where.

The rules this module keeps:
 * Marks are believed only with a signature of the key that the bundle's signed fields
   name, and only for this board, this target and these plain bytes.
 * They change bytes of the heads that the manifest declares (``watermark.heads``), none
   twice and no other: ``targets`` signs the manifest, so that whoever has the key of
   marks alters a head and never swaps a model. What a head says is that key's: it can
   turn every answer, and the golden samples of preflight judge it like any other.
 * Each changed variant has the digest that the marks state, and no variant has one
   that is not changed.
"""

import os
from collections import defaultdict
from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.core.container import entry_offsets
from agent.core.manifest import Manifest
from agent.core.reasons import Reason
from agent.core.sealing import MARKS_DOMAIN, HeadBlock, Marks, SignedMarks
from agent.errors import BundleRefusedError


def parse_signed_marks(raw: bytes, public_hex: str) -> Marks:
    """Return the marks of an envelope, whose signature is checked first.

    Args:
        raw: msgpack of ``SignedMarks``.
        public_hex: Ed25519 public key that the bundle's signed fields name.

    Raises:
        BundleRefusedError: ``envelope``.
    """
    try:
        signed = msgspec.msgpack.decode(raw, type=SignedMarks)
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex))
        public.verify(signed.signature, MARKS_DOMAIN + signed.marks)
        return msgspec.msgpack.decode(signed.marks, type=Marks)
    except InvalidSignature as err:
        what = "its marks are not signed by the key that the bundle names"
        raise _refused(what) from err
    except (ValueError, msgspec.MsgspecError, RecursionError) as err:
        raise _refused(f"its marks make no sense: {err}") from err


def check_marks(marks: Marks, board: str, target: str, plain_sha256: str) -> None:
    """Marks are for this board, this target and these bytes.

    Raises:
        BundleRefusedError: ``envelope``.
    """
    if marks.board != board:
        raise _refused(f"it marks {marks.board}'s copy, this board is {board}")
    if (marks.target, marks.plain_sha256) != (target, plain_sha256):
        raise _refused("its marks are for another version")


def write_marks(
    descriptor: int,
    entries: Mapping[str, memoryview],
    manifest: Manifest,
    marks: Marks,
) -> None:
    """Write the head blocks into the plain bytes, which nobody has seen yet.

    Args:
        descriptor: File that holds the plain bundle, whose digest was checked.
        entries: Its container's entries.
        manifest: Its manifest.
        marks: Checked by ``check_marks``.

    Raises:
        BundleRefusedError: ``watermark``: a block lies outside of the declared heads,
            or none are declared. ``envelope``: two blocks overlap, or changed variants
            are not those with a stated digest.
        OSError: The file cannot be written.
    """
    blocks = _by_variant(marks)
    offsets = entry_offsets(entries)
    declared = {variant.name: variant for variant in manifest.variants}
    for name, placed in blocks.items():
        if name not in declared:
            raise _refused(f"its marks change {name!r}, which is no variant")
        _check_overlaps(name, placed)
        _check_places(name, placed, manifest)
    # All of them are judged before the first byte is written.
    for name, placed in blocks.items():
        begin = offsets[declared[name].file]
        for block in placed:
            _write(descriptor, block.content, begin + block.offset)


def _by_variant(marks: Marks) -> dict[str, list[HeadBlock]]:
    """Return each variant's blocks in order; all and only those have a digest."""
    blocks: dict[str, list[HeadBlock]] = defaultdict(list)
    # In order, so that one look at the block before finds every overlap.
    for block in sorted(marks.blocks, key=lambda it: (it.variant, it.offset)):
        blocks[block.variant].append(block)
    # A digest without a block would vouch for a variant that nobody marked.
    if blocks.keys() != marks.results.keys():
        raise _refused("its marks change other variants than they have digests of")
    return blocks


def _check_overlaps(name: str, blocks: list[HeadBlock]) -> None:
    """Blocks of one variant lie one behind the other."""
    end = 0
    for block in blocks:
        if block.offset < end:
            raise _refused(f"two of its marks overlap in variant {name!r}")
        end = block.offset + len(block.content)


def _check_places(name: str, blocks: list[HeadBlock], manifest: Manifest) -> None:
    """Each block lies in a head that the manifest declares, and so in its variant."""
    mark = manifest.watermark
    heads = [it for it in mark.heads if it.variant == name] if mark else []
    for block in blocks:
        end = block.offset + len(block.content)
        if not any(it.offset <= block.offset and end <= it.end for it in heads):
            raise BundleRefusedError(
                f"watermark: its marks change bytes {block.offset} to {end} of variant "
                f"{name!r}, which are no head that its manifest declares",
                reason=Reason.WATERMARK,
                todo="Mark it again: `tinyward watermark instances`, then seal it.",
            )


def _write(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of a block."""
    written = 0
    with memoryview(content) as view:
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], offset + written)


def _refused(what: str) -> BundleRefusedError:
    """Return the error for marks that are not this board's."""
    return BundleRefusedError(f"envelope: {what}", reason=Reason.ENVELOPE)
