"""A board's own copy of a model: who may mark it, and where.

The rules this module keeps:
 * Marks are believed only with a signature of the key that the bundle's signed fields
   name, and only for this board, this target and these plain bytes.
 * They change variants that the manifest declares, inside their bounds, without
   touching a byte twice; the manifest, golden samples and everything else stay.
 * Each changed variant has the digest that the marks state, and no variant has one
   that is not changed: a mark can alter a head, never swap a model.
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
        BundleRefusedError: ``envelope``: a block lies outside of its variant or on
            another one; or changed variants are not those with a stated digest.
        OSError: The file cannot be written.
    """
    blocks = _by_variant(marks)
    offsets = entry_offsets(entries)
    declared = {variant.name: variant for variant in manifest.variants}
    for name, placed in blocks.items():
        if name not in declared:
            raise _refused(f"its marks change {name!r}, which is no variant")
        variant = declared[name]
        _check_blocks(name, placed, variant.size)
        for block in placed:
            _write(descriptor, block.content, offsets[variant.file] + block.offset)


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


def _check_blocks(name: str, blocks: list[HeadBlock], size: int) -> None:
    """Blocks of one variant lie inside of it, one behind the other."""
    end = 0
    for block in blocks:
        if block.offset < end:
            raise _refused(f"two of its marks overlap in variant {name!r}")
        end = block.offset + len(block.content)
    if end > size:
        raise _refused(f"its marks reach behind the end of variant {name!r}")


def _write(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of a block."""
    written = 0
    with memoryview(content) as view:
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], offset + written)


def _refused(what: str) -> BundleRefusedError:
    """Return the error for marks that are not this board's."""
    return BundleRefusedError(f"envelope: {what}", reason=Reason.ENVELOPE)
