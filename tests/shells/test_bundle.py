"""Opening a bundle: what is accepted, and that every lie and damage is refused."""

import hashlib
import json
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agent.core.container import render_container
from agent.core.manifest import MAX_MANIFEST_BYTES, SCHEMA
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.publish.pack import render_bundle
from agent.trust.bundle import MAX_OPTIONAL_BYTES, Bundle, open_bundle
from tests.fakes.bundles import (
    GOLDEN,
    MAX_BYTES,
    VARIANTS,
    good_bundle,
    good_entries,
    manifest,
)

GOOD = good_bundle()


def refusal(content: bytes, max_bytes: int = MAX_BYTES) -> BundleRefusedError:
    """Return the error that refuses these bytes."""
    with pytest.raises(BundleRefusedError) as caught:
        open_bundle(content, max_bytes=max_bytes)
    return caught.value


def with_entries(**changed: bytes | None) -> bytes:
    """Return a well-made container with entries changed, added or (None) removed.

    ``variants__int8`` names ``variants/int8.tflite``; ``golden`` and others by stem.
    """
    names = {
        "golden": "golden.npz",
        "variants__int8": "variants/int8.tflite",
        "variants__evil": "variants/evil.tflite",
    }
    entries: dict[str, bytes | None] = dict(good_entries())
    for key, content in changed.items():
        entries[names.get(key, f"{key}.json")] = content
    return render_container(
        {name: content for name, content in entries.items() if content is not None}
    )


def lying(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return a bundle whose manifest was changed after everything was computed."""
    tree = json.loads(good_entries()["manifest.json"])
    change(tree)
    return with_entries(manifest=json.dumps(tree).encode())


def test_a_good_bundle_opens() -> None:
    """Every part of a good bundle is found again."""
    bundle = open_bundle(GOOD, max_bytes=MAX_BYTES)
    recorded = replace(
        manifest().golden,
        sha256=hashlib.sha256(GOLDEN).hexdigest(),
        size=len(GOLDEN),
    )
    assert replace(manifest(), golden=recorded) == bundle.manifest
    assert good_entries()["manifest.json"] == bundle.raw_manifest
    assert hashlib.sha256(GOOD).hexdigest() == bundle.sha256
    assert len(GOOD) == bundle.size
    assert bundle.golden == GOLDEN
    assert {name: bundle.variant_bytes(name) for name in VARIANTS} == VARIANTS
    assert (bundle.profile, bundle.provenance) == (b"", b"")


def test_optional_entries_are_kept() -> None:
    """The profile and the provenance are handed on as they are."""
    content = with_entries(profile=b"{}", provenance=b'{"by": "us"}')
    bundle = open_bundle(content, max_bytes=MAX_BYTES)
    assert (bundle.profile, bundle.provenance) == (b"{}", b'{"by": "us"}')


def test_an_unknown_variant_is_refused() -> None:
    """Asking for a variant that is not there is a refusal, not a KeyError."""
    bundle = open_bundle(GOOD, max_bytes=MAX_BYTES)
    with pytest.raises(BundleRefusedError, match="'small'"):
        bundle.variant_bytes("small")


def test_a_mapped_file_is_not_copied(tmp_path: Path) -> None:
    """Variants and golden samples are read-only views into a mapped file."""
    path = tmp_path / "kws.bundle"
    path.write_bytes(GOOD)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    bundle = open_bundle(memoryview(mapped), max_bytes=MAX_BYTES)
    views = [bundle.golden, *map(bundle.variant_bytes, VARIANTS)]
    assert [view.obj is mapped and view.readonly for view in views] == [True] * 3


def test_a_view_of_writable_memory_is_read_only() -> None:
    """Nobody can change a variant through the bundle."""
    bundle = open_bundle(memoryview(bytearray(GOOD)), max_bytes=MAX_BYTES)
    with pytest.raises(TypeError):
        bundle.golden[0] = 1


def test_the_size_limit_comes_first() -> None:
    """Exactly the limit is allowed; one byte more is refused, whatever it holds."""
    assert isinstance(open_bundle(GOOD, max_bytes=len(GOOD)), Bundle)
    assert refusal(GOOD, len(GOOD) - 1).reason == Reason.TOO_LARGE
    assert refusal(b"no bundle at all", 4).reason == Reason.TOO_LARGE


@pytest.mark.skipif(sys.maxsize < 2**32, reason="a 32-bit board maps no 4 GB")
def test_what_would_need_zip64_is_refused_at_any_limit(tmp_path: Path) -> None:
    """4 GB of nothing are refused before they are read, whatever the limit is."""
    path = tmp_path / "huge.bundle"
    with path.open("w+b") as file:
        file.truncate(2**32)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with pytest.raises(BundleRefusedError) as caught:
        open_bundle(memoryview(mapped), max_bytes=2**40)
    assert caught.value.reason == Reason.TOO_LARGE


def boundaries() -> list[int]:
    """Return the offset of every structure in the good bundle, and its neighbours."""
    marks = [
        b"PK\x03\x04",
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"manifest.json",
        b"variants/",
    ]
    found = {0, len(GOOD) - 1}
    for mark in [*marks, *good_entries().values()]:
        place = GOOD.find(mark)
        while place >= 0:
            found |= {place, place + 1, place + len(mark)}
            place = GOOD.find(mark, place + 1)
    return sorted(found - {len(GOOD)})


CUTS = sorted({*range(0, len(GOOD), 4096), *boundaries(), len(GOOD) - 22})


@pytest.mark.parametrize("length", CUTS)
def test_truncated_bundles_are_refused(length: int) -> None:
    """Cut at every 4 KB and at every structure, a bundle is refused as truncated."""
    assert refusal(GOOD[:length]).reason == Reason.TRUNCATED


def regions() -> dict[str, tuple[int, int]]:
    """Return name -> (begin, end) of every region of the good bundle."""
    found: dict[str, tuple[int, int]] = {}
    position = 0
    for name, content in good_entries().items():
        begin = GOOD.index(content, position)
        found |= {f"header of {name}": (position, begin)}
        position = begin + len(content)
        found |= {f"content of {name}": (begin, position)}
    end = len(GOOD) - 22
    return found | {"directory": (position, end), "end record": (end, len(GOOD))}


REGIONS = regions()


@pytest.mark.parametrize("region", REGIONS)
def test_a_flipped_bit_is_refused_in_every_region(region: str) -> None:
    """One flipped bit is refused wherever it is: 64 places of each region, each bit."""
    begin, end = REGIONS[region]
    places = range(begin, end, max(1, (end - begin) // 64))
    reasons = set()
    for place in places:
        for bit in range(8):
            flipped = bytearray(GOOD)
            flipped[place] ^= 1 << bit
            reasons.add(refusal(bytes(flipped)).reason)
    assert reasons <= {Reason.MALFORMED, Reason.TRUNCATED}


def first_variant(**changes: object) -> Callable[[dict[str, Any]], None]:
    """Return what changes the manifest's first variant."""
    return lambda tree: tree["variants"][0].update(changes)


LIES: dict[str, tuple[Callable[[], bytes], Reason, str]] = {
    "no manifest": (lambda: with_entries(manifest=None), Reason.MALFORMED, "manifest"),
    "empty manifest": (lambda: with_entries(manifest=b""), Reason.MANIFEST, "manifest"),
    "manifest is not JSON": (
        lambda: with_entries(manifest=b"version: 7"),
        Reason.MANIFEST,
        "manifest",
    ),
    "manifest too large": (
        lambda: with_entries(manifest=b" " * (MAX_MANIFEST_BYTES + 1)),
        Reason.TOO_LARGE,
        "manifest",
    ),
    "profile too large": (
        lambda: with_entries(profile=b" " * (MAX_OPTIONAL_BYTES + 1)),
        Reason.TOO_LARGE,
        "profile",
    ),
    "provenance too large": (
        lambda: with_entries(provenance=b" " * (MAX_OPTIONAL_BYTES + 1)),
        Reason.TOO_LARGE,
        "provenance",
    ),
    "variant missing": (
        lambda: with_entries(variants__int8=None),
        Reason.MALFORMED,
        "variants/int8.tflite is declared but missing",
    ),
    "golden samples missing": (
        lambda: with_entries(golden=None),
        Reason.MALFORMED,
        "golden.npz is declared but missing",
    ),
    "variant too many": (
        lambda: with_entries(variants__evil=b"TFL3"),
        Reason.MALFORMED,
        "variants/evil.tflite is not declared",
    ),
    "entry too many": (
        lambda: with_entries(readme=b"hello"),
        Reason.MALFORMED,
        "readme.json is not declared",
    ),
    "another model in its place": (
        lambda: with_entries(variants__int8=VARIANTS["int8"][::-1]),
        Reason.DIGEST,
        "variants/int8.tflite is not what",
    ),
    "longer model in its place": (
        lambda: with_entries(variants__int8=VARIANTS["int8"] + b"\0"),
        Reason.LENGTH,
        "5001 bytes",
    ),
    "other golden samples": (
        lambda: with_entries(golden=GOLDEN[::-1]),
        Reason.DIGEST,
        "golden.npz is not what",
    ),
    "shorter golden samples": (
        lambda: with_entries(golden=GOLDEN[:-1]),
        Reason.LENGTH,
        "2999 bytes",
    ),
    "size lies": (lambda: lying(first_variant(size=1)), Reason.LENGTH, "says 1"),
    "huge size": (lambda: lying(first_variant(size=2**60)), Reason.MANIFEST, "size"),
    "digest lies": (
        lambda: lying(first_variant(sha256="0" * 64)),
        Reason.DIGEST,
        "float",
    ),
    "digests swapped": (
        lambda: lying(
            lambda tree: tree["variants"][0].update(
                {key: tree["variants"][1][key] for key in ("sha256", "size")}
            )
        ),
        Reason.LENGTH,
        "float",
    ),
    "one file as two variants": (
        lambda: lying(first_variant(file="variants/int8.tflite")),
        Reason.MANIFEST,
        "share",
    ),
    "file is the manifest": (
        lambda: lying(first_variant(file="manifest.json")),
        Reason.MANIFEST,
        "file",
    ),
    "file elsewhere": (
        lambda: lying(first_variant(file="variants/../../root.json")),
        Reason.MANIFEST,
        "file",
    ),
    "shape lies": (
        lambda: lying(lambda tree: tree["variants"][0]["inputs"][0].update(shape=[0])),
        Reason.MANIFEST,
        "shape",
    ),
    "dtype lies": (
        lambda: lying(lambda tree: tree["variants"][0]["inputs"][0].update(dtype="O")),
        Reason.MANIFEST,
        "dtype",
    ),
    "version 0": (
        lambda: lying(lambda tree: tree.update(version=0)),
        Reason.MANIFEST,
        "version",
    ),
    "huge version": (
        lambda: lying(lambda tree: tree.update(version=10**30)),
        Reason.MANIFEST,
        "version",
    ),
    "newer schema": (
        lambda: lying(lambda tree: tree.update(schema=SCHEMA + 1, surprise=True)),
        Reason.SCHEMA,
        f"schema {SCHEMA + 1} is newer",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_with_their_reason(lie: str) -> None:
    """Well-made containers whose parts contradict each other are refused by name."""
    make, reason, meaning = LIES[lie]
    error = refusal(make())
    assert reason == error.reason
    assert meaning in str(error)


def test_two_equal_variants_may_share_content() -> None:
    """Two variants with the same bytes are two entries, each checked."""
    twins = {"one": b"TFL3" * 9, "two": b"TFL3" * 9}
    bundle = open_bundle(
        render_bundle(manifest(twins), twins, GOLDEN), max_bytes=MAX_BYTES
    )
    assert twins == {name: bundle.variant_bytes(name) for name in twins}
