"""``tinyward watermark instances``: a bundle to seal, and a copy for each board."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.watermark_book import open_book, unusable
from agent.cli.watermark_runtime import (
    Runtime,
    quiet_arithmetic,
    require_libraries,
)
from agent.cli.watermark_view import Made, show_copies

if TYPE_CHECKING:
    from agent.publish.marks_book import MarkedVersion, MarksBook
    from agent.publish.watermark.copies import Plan
    from agent.publish.watermark.markable import Given, Wish
    from agent.publish.watermark.secrets import VariantSecret
    from agent.trust.bundle import Bundle

HELP = """Make MODEL.bundle markable, and a copy of it for each board.

\b
Writes MODEL-VERSION.marked.bundle, which is what to seal and publish, and every board's
codeword and head into the book:
    tinyward watermark instances kws-8.bundle --boards boards.csv --data clean.npz
    tinyward seal kws-8.marked.bundle --to boards/*.pub --marks marks.db

boards.csv has a board's id in its first column; more columns are not looked at. Boards
that are in the book keep their copy, so this can be stopped and run again, and boards
can be added later. --data are 100 or more samples as the source gives them, without
labels; the more they are like what boards will see, the less their copies differ.

Refused with reason `watermark`: regressors, autoencoders and detectors, models of two
classes, heads that are not FULLY_CONNECTED, that share their weights, or that are too
small for so many bits. A model that is seldom sure gets a smaller margin, which is
said."""

SAVE_EVERY_S = 15.0  # what a crash costs of the work; a book of 10,000 takes 0.1 s
_FILE = click.Path(exists=True, path_type=Path)


class Options(TypedDict):
    """Options of the command."""

    boards: Path
    bits: int
    data: Sequence[Path]
    array: str
    book: Path
    margin: float | None
    floor: float
    steps: int
    jobs: int
    out: Path | None
    passphrase_files: Sequence[Path]


@click.command(help=HELP, short_help="Make a copy of a model for each board.")
@click.argument("bundle", metavar="MODEL.bundle", type=_FILE)
@click.option("--boards", type=_FILE, required=True, help="CSV: ids of boards.")
@click.option(
    "--bits",
    type=click.IntRange(32, 512),
    default=128,
    show_default=True,
    help="For activation; as many more, for tracing, stay in the book. In eights.",
)
@click.option(
    "--data",
    multiple=True,
    type=_FILE,
    help="Clean samples: .npy, .npz, images, WAV, CSV, JSONL, or a folder.",
)
@click.option("--array", default="", help="Which array of an .npz.  [default: first]")
@click.option(
    "--book",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("marks.db"),
    show_default=True,
    help="The book of marks; it is made where there is none.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0.05, 10.0),
    help="Logits by which a copy prefers the right bit: 1 is gentle, 3 robust.  "
    "[default: what the model has room for, at most 1.2]",
)
@click.option(
    "--floor",
    type=click.FloatRange(0.0, 1.0),
    default=0.98,
    show_default=True,
    help="Least agreement of a copy with the model, on data it was not made with.",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 5000),
    default=200,
    show_default=True,
    help="Of the search for triggers, once for each version.",
)
@click.option("--jobs", type=click.IntRange(0), default=0, help="[default: cores]")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path))
@click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the passphrase of the book; without it you are asked.",
)
def command(bundle: Path, **options: Unpack[Options]) -> None:
    """Make the markable bundle, then a copy of it for every board that has none.

    Raises:
        SettingsError: A file is not what it should be.
        BundleRefusedError: The bundle is damaged, or cannot be marked (``watermark``).
        DeviceError: The data cannot be read, or a file cannot be written.
    """
    require_libraries()
    quiet_arithmetic()
    from agent.cli.watermark_boards import check_bits, read_boards
    from agent.publish.files import locked
    from agent.publish.watermark.markable import check_markable
    from agent.trust.bundle import open_bundle

    content = bundle.read_bytes()
    opened = open_bundle(content, max_bytes=len(content))
    check_markable(opened.manifest)
    boards = read_boards(options["boards"])
    check_bits(options["bits"], len(boards))
    with locked(options["book"].absolute().parent):
        _Run(content, opened, boards, options).work()


@dataclass(slots=True)
class _Run:
    """One call of the command."""

    content: bytes
    bundle: "Bundle"
    boards: "Sequence[str]"
    options: Options

    def work(self) -> None:
        """Prepare the version, write its bundle, make copies."""
        book = open_book(self.options["book"], self.options["passphrase_files"])
        manifest = self.bundle.manifest
        known = book.version(manifest.model, manifest.version)
        if known is not None:
            self._check_known(known)
        missing = [
            it for it in self.boards if known is None or it not in book.boards(known)
        ]
        plan = None
        if known is None or missing:
            known, plan = self._prepare(book, known)
        out = self._write(known)
        began_s = time.monotonic()
        if plan is not None and missing:
            self._make(book, known, plan, missing)
        made = Made(out, len(missing), time.monotonic() - began_s)
        show_copies(book, known, frozenset(self.boards), made)

    def _check_known(self, known: "MarkedVersion") -> None:
        """A version is marked from one bundle only, with as many bits.

        Raises:
            SettingsError: The book has it of another bundle.
        """
        if (known.source_sha256, known.bits) != (
            self.bundle.sha256,
            self.options["bits"],
        ):
            raise unusable(
                f"{self.options['book']} has {known.model} {known.version} of another "
                f"bundle, or of {known.bits} bits",
                "Pack it under a higher version, or name another --book.",
            )

    def _prepare(
        self, book: "MarksBook", known: "MarkedVersion | None"
    ) -> "tuple[MarkedVersion, Plan]":
        """Return the version and the plan of its copies; find triggers once."""
        from agent.cli.watermark_inputs import read_givens
        from agent.publish.watermark.fitting import MARGINS, check_room
        from agent.publish.watermark.markable import Wish, plan_copies
        from agent.publish.watermark.secrets import VariantSecret

        options, runtime = self.options, Runtime()
        givens = read_givens(self.bundle, options["data"], options["array"])
        check_room(givens, options["bits"])
        wish = Wish(options["bits"], MARGINS[0], options["floor"], options["steps"])
        if known is None:
            secrets = self._search(givens, wish)
            known = self._add(book, givens, secrets, wish)
        secrets = {
            name: VariantSecret.parse(raw) for name, raw in known.secrets.items()
        }
        wish = replace(wish, margin=options["margin"] or known.margin)
        return known, plan_copies(givens, secrets, wish, known.tolerances, runtime)

    def _search(
        self, givens: "dict[str, Given]", wish: "Wish"
    ) -> "dict[str, VariantSecret]":
        """Find the triggers of every variant."""
        import numpy as np

        from agent.cli.repo_delta import Bar
        from agent.publish.watermark.markable import find_secret

        secrets = {}
        for name, given in givens.items():
            with Bar(f"looking for triggers of {name}", wish.steps) as bar:
                # Seeded by the system: who could guess the seed would have them.
                random = np.random.default_rng()
                secrets[name] = find_secret(given, wish, Runtime(), random, bar.show)
        return secrets

    def _add(
        self,
        book: "MarksBook",
        givens: "dict[str, Given]",
        secrets: "dict[str, VariantSecret]",
        wish: "Wish",
    ) -> "MarkedVersion":
        """Write a new version down; from now on its bundle can be made again."""
        import hashlib

        from agent.cli.repo_delta import Bar
        from agent.publish.marks_book import MarkedVersion
        from agent.publish.watermark.fitting import fit_margin, likely_margins
        from agent.publish.watermark.markable import plan_copies, render_markable

        runtime = Runtime()
        pilot = plan_copies(givens, secrets, wish, {}, runtime)
        asked = self.options["margin"]
        margins = (asked,) if asked else likely_margins(pilot)
        with Bar("trying margins", len(margins)) as bar:
            fit = fit_margin(pilot, margins, runtime, bar.show)
        marked = render_markable(self.content, wish.bits, secrets, fit.tolerances)
        version = MarkedVersion(
            model=self.bundle.manifest.model,
            version=self.bundle.manifest.version,
            source_sha256=self.bundle.sha256,
            plain_sha256=hashlib.sha256(marked).hexdigest(),
            groups=pilot.groups,
            bits=wish.bits,
            secrets={name: it.render() for name, it in secrets.items()},
            tolerances=fit.tolerances,
            margin=fit.margin,
        )
        book.add_version(version)
        book.save()
        return version

    def _write(self, known: "MarkedVersion") -> Path:
        """Write the bundle that is to be sealed; the same bytes every time."""
        from agent.publish.files import write_durably
        from agent.publish.watermark.markable import render_markable
        from agent.publish.watermark.secrets import VariantSecret

        secrets = {
            name: VariantSecret.parse(raw) for name, raw in known.secrets.items()
        }
        marked = render_markable(self.content, known.bits, secrets, known.tolerances)
        out = self.options["out"] or Path(
            f"{known.model}-{known.version}.marked.bundle"
        )
        write_durably(out, marked)
        return out

    def _make(
        self,
        book: "MarksBook",
        known: "MarkedVersion",
        plan: "Plan",
        missing: Sequence[str],
    ) -> None:
        """Make copies of all boards that have none; save now and then."""
        import os

        from agent.cli.repo_delta import Bar
        from agent.publish.watermark.crew import make_many

        jobs = self.options["jobs"] or os.cpu_count() or 1
        saved_s, done = time.monotonic(), 0
        with Bar(f"copies for {len(missing):,} boards", len(missing)) as bar:
            for copies in make_many(plan, missing, Runtime(), jobs):
                book.add(known, copies)
                done += len(copies)
                bar.show(done)
                if time.monotonic() - saved_s > SAVE_EVERY_S:
                    book.save()
                    saved_s = time.monotonic()
        book.save()
