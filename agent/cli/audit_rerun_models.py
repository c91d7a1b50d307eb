"""The models that an auditor brings: of bundles, and a board's own marked copies.

The rules this module keeps:
 * A board's copy is made as the board makes it, by the same code, in memory alone: it
   is the one file that tells whose it is, and nothing here writes it to a disk.
 * It counts as the board's only with the digest that the book's marks state; whether
   that is what ran, each receipt says.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent.cli.inspect import read_limited
from agent.cli.plain_text import plain
from agent.cli.rerun import AuditedModel
from agent.core.container import entry_offsets, parse_container
from agent.core.reasons import Reason
from agent.core.sealing import Marks
from agent.core.targets import bundle_path
from agent.errors import DeviceError, SettingsError
from agent.settings import UpdateSettings
from agent.trust.bundle import Bundle, open_bundle
from agent.trust.marks import write_marks

if TYPE_CHECKING:
    from agent.publish.seal import Book


@dataclass(frozen=True, slots=True)
class Brought:
    """A bundle that an auditor brings.

    Attributes:
        path: Its file; ``content`` all of it.
        bundle: It, opened.
    """

    path: Path
    content: bytes
    bundle: Bundle

    @property
    def is_marked(self) -> bool:
        """Whether each board runs a copy of its own."""
        return self.bundle.manifest.watermark is not None


def read_bundles(paths: Sequence[Path]) -> list[Brought]:
    """Read bundles.

    Raises:
        SettingsError: ``settings``: one cannot be read, or is a sealed folder.
        BundleRefusedError: One is no bundle.
    """
    for path in paths:
        if path.is_dir():
            todo = "Name the plain bundle, which was given to `tinyward seal`."
            raise _wrong(f"--bundle: {path} is a folder, sealed perhaps", todo)
    found = []
    for path in paths:
        content = read_limited(path, _max_bytes())
        bundle = open_bundle(content, max_bytes=_max_bytes())
        found.append(Brought(path, content, bundle))
    return found


def gather_models(
    brought: Sequence[Brought],
    copies: Sequence[Path],
    book: "Book | None",
    board: str,
) -> dict[bytes, AuditedModel]:
    """Return the models that are at hand, by the digests of what runs.

    Args:
        brought: Bundles.
        copies: Files that are single boards' copies of variants in them.
        book: Makes the board's own copies of those that are marked.
        board: Whose log is audited.

    Raises:
        SettingsError: ``settings``: a file cannot be read or belongs to no bundle, or
            the book has no copy for this board.
        BundleRefusedError: A copy is not what its owner signed.
    """
    models: dict[bytes, AuditedModel] = {}
    for it in brought:
        for name in _variants(it.bundle):
            _add(models, it.bundle, name, bytes(it.bundle.variant_bytes(name)))
    plain_ones = list(models.values())
    for path in copies:
        content = read_limited(path, _max_bytes())
        # A copy differs in its head alone: of the variants it is the one as long.
        like = [it for it in plain_ones if len(it.content) == len(content)]
        if not like:
            todo = "Name the bundle that it is a copy of, too: --bundle."
            raise _wrong(f"--tflite: {path} is as long as no variant", todo)
        model = AuditedModel(like[0].bundle, like[0].variant, content)
        models[sha256(content).digest()] = model
    if book is not None:
        for owner, name, content in _own_copies(brought, book, board):
            _add(models, owner, name, content)
    return models


def _own_copies(
    brought: Sequence[Brought], book: "Book", board: str
) -> Iterator[tuple[Bundle, str, bytes]]:
    """Yield bundle, variant and .tflite of each copy that the book has for the board.

    Raises:
        SettingsError: ``settings``: it has none at all.
    """
    marked = [it for it in brought if it.is_marked]
    if not marked:
        todo = "Name the bundle that `tinyward watermark instances` wrote: --bundle."
        raise _wrong("--book: none of the bundles is marked", todo)
    refusals: list[SettingsError] = []
    for it in marked:
        manifest = it.bundle.manifest
        target = bundle_path(manifest.model, manifest.version)
        try:
            signed = book.marks(board, target, it.bundle.sha256)
        except SettingsError as err:
            # Another book's, or never for this board: no receipt may ask for it.
            refusals.append(err)
            continue
        # The signature is the book's own, which its passphrase has just vouched for.
        marks = msgspec.msgpack.decode(signed.marks, type=Marks)
        for name, content in _marked(it, marks):
            yield it.bundle, name, content
    if len(refusals) == len(marked):
        raise refusals[0]


def _marked(brought: Brought, marks: Marks) -> Iterator[tuple[str, bytes]]:
    """Yield the variants that marks change, as they run on their board.

    Raises:
        BundleRefusedError: ``watermark``, ``envelope``: marks reach where they may not.
        SettingsError: ``settings``: a copy has not the digest that the marks state.
        DeviceError: There is no memory.
    """
    entries = parse_container(memoryview(brought.content))
    offsets = entry_offsets(entries)
    manifest = brought.bundle.manifest
    try:
        with os.fdopen(os.memfd_create("copy", os.MFD_CLOEXEC), "w+b") as memory:
            memory.write(brought.content)
            memory.flush()
            write_marks(memory.fileno(), entries, manifest, marks)
            memory.seek(0)
            whole = memory.read()
    except OSError as err:
        what = f"a copy in memory: {err.strerror or err}"
        raise DeviceError(what, reason=Reason.MEMORY) from err
    for name, expected in marks.results.items():
        variant = manifest.variant(name)
        begin = offsets[variant.file]
        content = whole[begin : begin + variant.size]
        if sha256(content).hexdigest() != expected:
            what = f"{brought.path}: the book's copy of {plain(name)} is not whole"
            raise _wrong(what, "Use a copy of the book from before it was damaged.")
        yield name, content


def _add(
    models: dict[bytes, AuditedModel], bundle: Bundle, name: str, content: bytes
) -> None:
    """Take a model in, under its digest."""
    models[sha256(content).digest()] = AuditedModel(bundle, name, content)


def _variants(bundle: Bundle) -> list[str]:
    """Return the names of a bundle's variants."""
    return [variant.name for variant in bundle.manifest.variants]


def _max_bytes() -> int:
    """Return how large a bundle may be: as large as a board takes one."""
    return int(UpdateSettings().max_bundle_mb * 1_000_000)


def _wrong(what: str, todo: str) -> SettingsError:
    """Return the error for an option that does not fit."""
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
