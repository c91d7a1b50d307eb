"""Any bytes are a bundle or a refusal; a mutated bundle is never the signed one."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.container import parse_container, render_container
from agent.errors import BundleRefusedError
from agent.trust.bundle import open_bundle
from tests.fakes.bundles import MAX_BYTES, good_bundle, good_entries

GOOD = good_bundle()
SIGNED = hashlib.sha256(GOOD).hexdigest()


def opened(content: bytes) -> str:
    """Return the digest of a bundle that opens, or nothing if it is refused."""
    try:
        return open_bundle(content, max_bytes=MAX_BYTES).sha256
    except BundleRefusedError:
        return ""


@settings(max_examples=500)
@given(st.binary(max_size=5_000))
def test_any_bytes_are_refused(content: bytes) -> None:
    """Arbitrary bytes never open and raise nothing but a refusal."""
    assert not opened(content)


places = st.integers(0, len(GOOD))
edits = st.one_of(
    st.tuples(places, st.just(1), st.binary(min_size=1, max_size=1)),
    st.tuples(places, st.integers(0, 5_000), st.binary(max_size=50)),
    st.tuples(places, st.integers(0, 64), places.map(lambda at: GOOD[at : at + 500])),
)


@settings(max_examples=1_000)
@given(st.lists(edits, min_size=1, max_size=5))
def test_2_a_mutated_bundle_is_refused_or_is_not_what_was_signed(
    changes: list[tuple[int, int, bytes]],
) -> None:
    """1,000 mutations: each is refused here, or has a digest that TUF refuses."""
    content = GOOD
    for place, removed, inserted in changes:
        content = content[:place] + inserted + content[place + removed :]
    digest = opened(content)
    assert (content == GOOD) == (digest == SIGNED)


@settings(max_examples=500)
@given(
    st.sampled_from(sorted(good_entries())),
    st.lists(st.tuples(st.integers(0, 9_000), st.binary(max_size=8)), max_size=4),
)
def test_2_mutated_entries_in_a_good_container_are_refused(
    name: str, changes: list[tuple[int, bytes]]
) -> None:
    """An entry changed with its CRC put right opens only where the manifest allows."""
    entry = good_entries()[name]
    for place, inserted in changes:
        entry = entry[:place] + inserted + entry[place + len(inserted) :]
    content = render_container({**good_entries(), name: entry})
    digest = opened(content)
    if name != "manifest.json":
        assert (content == GOOD) == (digest == SIGNED)
    if digest:
        assert hashlib.sha256(content).hexdigest() == digest


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([*good_entries(), "profile.json", "variants/x.tflite"]),
        st.binary(max_size=300),
        max_size=6,
    )
)
def test_2_any_entries_are_a_bundle_or_refused(entries: dict[str, bytes]) -> None:
    """Well-made containers of anything raise nothing but a refusal."""
    content = render_container({**good_entries(), **entries})
    digest = opened(content)
    if digest:
        parsed = parse_container(memoryview(content))
        assert good_entries()["golden.npz"] == bytes(parsed["golden.npz"])
