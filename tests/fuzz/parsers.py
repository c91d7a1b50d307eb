"""Parsers of what others write, called directly: children, operators, servers.

Each is a function of bytes that says in one word what came of them; whatever it raises
beyond its own kind of error is an escape.
"""

import functools
import hashlib
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from agent.core.child_lines import parse_line
from agent.core.container import parse_container, render_container
from agent.core.manifest import parse_manifest, render_manifest
from agent.core.messages import (
    Answers,
    Examined,
    Examining,
    Finding,
    FromChild,
    Loaded,
    Ready,
    Refused,
    Shadowed,
    SourceState,
    Stopped,
    Swapped,
    parse_from_child,
    render_message,
)
from agent.core.reasons import Reason
from agent.core.statistics_block import BLOCK_BYTES, LAYOUT_VERSION, WORD, parse_block
from agent.core.targets import (
    REVOKED_PATH,
    GroupFile,
    parse_group,
    parse_revocations,
)
from agent.endpoint.bodies import parse_json, parse_range
from agent.errors import AgentError
from agent.store.slice_path import check_slice_path
from agent.trust import answers
from agent.trust.bundle import open_bundle
from agent.worker.golden import GoldenSamples, parse_golden, render_golden
from tests.fakes.bundles import MAX_BYTES, VARIANTS, manifest
from tests.fakes.mutants import mutated
from tests.fuzz import ddi, deltas, receipts, statements
from tests.fuzz.fleet import BUNDLES, CONTENTS, GROUP
from tests.fuzz.inputs import bundle_damage
from tests.fuzz.json_text import damaged, render

MESSAGES: tuple[FromChild, ...] = (
    Ready(7, {"seccomp": ""}, 2**25, {"litert": "2.3.0"}),
    Loaded(1, 0.5),
    Swapped(1, 100, 2**20),
    Shadowed(9, 9, p95_ms=1.5, detail="x"),
    Refused(1, Reason.CONTRACT, "two inputs"),
    SourceState(Reason.NONE),
    Stopped(9),
    Examining(0, "load"),
    Finding(0, max_difference=0.5, ram_bytes=2**20),
    Examined(),
    Answers((0, 1, 2)),
)
HEADERS = (
    *("bytes 0-9/20", "bytes 5-9/*", "120", "Sun, 06 Nov 1994 08:49:37 GMT", '"abc"'),
    *('W/"abc"', "https://a.example/x", "//b/x", "/a/../b", "1048576", "text/html"),
    *("http://[::1]:8/x", "bytes 99999999999999-3/4", "-1", "٣", "a\0b"),
)
DIGEST = hashlib.sha256(BUNDLES[2]).hexdigest()
BLOCK = LAYOUT_VERSION.to_bytes(WORD, sys.byteorder) + bytes(BLOCK_BYTES - WORD)
PATHS = ("metadata/2.root.json", "targets/models/kws/ab.1.bundle", "targets/fleet/x")


@dataclass(frozen=True, slots=True)
class Parser:
    """Something that reads what others wrote.

    Attributes:
        seeds: Honest inputs.
        damage: Makes another one of one.
        parse: Says in a word what came of it; raises only its kind of ``AgentError``.
        share: Of a hundred inputs.
    """

    seeds: tuple[bytes, ...]
    damage: Callable[[bytes, random.Random], bytes]
    parse: Callable[[bytes], str]
    share: float = 1.0


def any_damage(raw: bytes, chance: random.Random) -> bytes:
    """Damage bytes in one place or three, or take random ones."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(200))
    for _ in range(chance.choice((1, 1, 3))):
        raw = mutated(raw, chance) if len(raw) > 2 else raw + b"x"
    return raw


def json_damage(raw: bytes, chance: random.Random) -> bytes:
    """Damage JSON by its structure, mostly."""
    if chance.random() < 0.2:
        return any_damage(raw, chance)
    return render(damaged(json.loads(raw), chance))


def pack_damage(raw: bytes, chance: random.Random) -> bytes:
    """Damage msgpack by its structure, mostly."""
    if chance.random() < 0.4:
        return any_damage(raw, chance)
    tree = damaged(msgspec.msgpack.decode(raw), chance)
    try:
        return msgspec.msgpack.encode(tree)
    except (OverflowError, TypeError, UnicodeEncodeError):
        return any_damage(raw, chance)


def child_message(raw: bytes) -> str:
    """A child's control message; what is one can be written again."""
    message = parse_from_child(raw)
    render_message(message)
    return "parsed"


def child_line(raw: bytes) -> str:
    """A line on a child's standard error: everything is one."""
    return f"level {parse_line(raw.decode(errors='replace')).level}"


def block(raw: bytes) -> str:
    """Shared memory that a mad worker wrote."""
    found = parse_block(raw)
    return "torn" if found is None else "parsed"


def pushed(raw: bytes) -> str:
    """A desired state that is pushed: what is accepted is what any parser reads."""
    same_meaning(raw, parse_json(raw, GroupFile))
    return "parsed"


def headers(raw: bytes) -> str:
    """Headers of an answer: a value or a cautious default, for any text."""
    text = raw.decode("latin-1")
    found = answers.parse_content_range(text)
    wait_s = answers.parse_retry_after(text, 0.0)
    if not 0 <= wait_s <= answers.MAX_RETRY_AFTER_S:
        raise ValueError(f"asked to wait {wait_s} s")
    answers.parse_length(text)
    answers.is_settled(text, "Sun, 06 Nov 1994 08:49:37 GMT")
    answers.is_settled("Sun, 06 Nov 1994 08:49:37 GMT", text)
    answers.is_web_page(text, raw)
    answers.any_tag(text)
    onward = answers.redirect_url("https://a.example/r/x", text)
    if onward and not onward.lower().startswith("https://a.example"):
        raise ValueError(f"redirected to {onward!r}")
    url = answers.join_url("https://a.example/r", text)
    if url and not url.startswith("https://a.example/r/"):
        raise ValueError(f"{text!r} leads to {url!r}")
    return "range" if found else "text"


def content_range(raw: bytes) -> str:
    """A request's Content-Range."""
    span = parse_range(raw.decode("latin-1"), None)
    if not (span.start >= 0 and 0 < span.size <= span.total - span.start):
        raise ValueError(f"{raw!r} was taken for {span}")
    return "parsed"


def slice_path(raw: bytes) -> str:
    """Where an upload wants to lie."""
    path = raw.decode("latin-1")
    check_slice_path(path, 9)
    if ".." in path.split("/") or "\0" in path or path.startswith("/"):
        raise ValueError(f"{path!r} was accepted")
    return "accepted"


def manifest_text(raw: bytes) -> str:
    """A manifest on its own: what is accepted is written and read again."""
    found = parse_manifest(raw)
    if parse_manifest(render_manifest(found)) != found:
        raise ValueError("it is another one when written")
    return "parsed"


@functools.cache
def golden_samples() -> bytes:
    """Return golden samples for the bundle of the tests."""
    zeros = np.zeros((4, 1, 3), np.float32)
    samples = np.zeros((4, 1, 8, 8, 1), np.int8)
    return render_golden(GoldenSamples((samples,), dict.fromkeys(VARIANTS, (zeros,))))


def golden(raw: bytes) -> str:
    """golden.npz, in the child."""
    stated = manifest()
    parse_golden(
        memoryview(raw), replace(stated, golden=replace(stated.golden, samples=4))
    )
    return "parsed"


def npz_damage(raw: bytes, chance: random.Random) -> bytes:
    """Damage an array in a right container, or the container."""
    if chance.random() < 0.3:
        return any_damage(raw, chance)
    entries = {name: bytes(it) for name, it in parse_container(memoryview(raw)).items()}
    name = chance.choice(sorted(entries))
    entry = entries[name]
    head = mutated(entry[:128], chance)
    if chance.random() < 0.3:
        head = entry[:128].replace(b"3", chance.choice((b"9", b"-1", b"2**9", b"1e9")))
    entries[name] = head + entry[128:]
    return render_container(entries)


def container(raw: bytes) -> str:
    """A bundle on its own: what opens is spelled in the one right way."""
    opened = open_bundle(raw, max_bytes=MAX_BYTES)
    if render_container(parse_container(memoryview(raw))) != raw:
        raise ValueError("it has two spellings")
    if raw != BUNDLES[2] and opened.sha256 == DIGEST:
        raise ValueError("it is taken for the one that was signed")
    return "opened"


def desired(raw: bytes) -> str:
    """A desired state on its own."""
    same_meaning(raw, parse_group(raw, GROUP))
    return "parsed"


def revocations(raw: bytes) -> str:
    """Revocations on their own."""
    same_meaning(raw, parse_revocations(raw))
    return "parsed"


def same_meaning(raw: bytes, parsed: object) -> None:
    """Hold what was parsed against another parser's reading.

    Raises:
        ValueError: They differ.
    """
    said: dict[str, Any] = json.loads(raw)
    for name, value in msgspec.to_builtins(parsed).items():
        spelled = list(value) if isinstance(value, tuple) else value
        if name in said and said[name] != spelled:
            raise ValueError(f"{name} was {said[name]!r} and became {value!r}")


PARSERS: Mapping[str, Parser] = {
    "containers": Parser((BUNDLES[2],), bundle_damage, container, share=10),
    "desired states, parsed": Parser((CONTENTS[GROUP],), json_damage, desired, share=4),
    "revocations, parsed": Parser(
        (CONTENTS[REVOKED_PATH],), json_damage, revocations, share=2
    ),
    "children's messages": Parser(
        tuple(map(render_message, MESSAGES)), pack_damage, child_message, share=5
    ),
    "children's lines": Parser((b"<4>[input] kws 7: NaN",), any_damage, child_line),
    "statistics blocks": Parser((BLOCK,), any_damage, block),
    "pushed desired states": Parser((CONTENTS[GROUP],), json_damage, pushed),
    "headers of answers": Parser(
        tuple(text.encode() for text in HEADERS), any_damage, headers
    ),
    "headers of requests": Parser(
        (b"bytes 0-9/20", b"bytes 1-2/3"), any_damage, content_range
    ),
    "paths of uploads": Parser(
        tuple(path.encode() for path in PATHS), any_damage, slice_path
    ),
    "manifests": Parser(
        (render_manifest(manifest()),), json_damage, manifest_text, share=5
    ),
    "DDI polls": Parser((ddi.POLL,), json_damage, ddi.poll, share=2),
    "DDI orders": Parser((ddi.DEPLOYMENT,), json_damage, ddi.deployment, share=3),
    "DDI cancellations": Parser((ddi.CANCEL,), json_damage, ddi.cancel),
    "DDI pointers": Parser(ddi.POINTERS, any_damage, ddi.pointer, share=2),
    "DDI links": Parser(
        tuple(text.encode() for text in ddi.LINKS), any_damage, ddi.link, share=2
    ),
    "statements of origin": Parser(
        (statements.STATEMENT, statements.ENVELOPE), json_damage, statements.statement
    ),
    "envelopes": Parser((statements.ENVELOPE,), json_damage, statements.envelope),
    "challenges": Parser((statements.CHALLENGE,), any_damage, statements.challenge),
    "triggers": Parser((statements.TRIGGERS,), npz_damage, statements.triggers, 2),
    "kept inputs": Parser((receipts.KEPT,), pack_damage, receipts.kept),
    "rings of receipts": Parser((receipts.RING,), any_damage, receipts.ring),
    "deltas": Parser(deltas.PATCHES, any_damage, deltas.applied, share=3),
    "golden samples": Parser((golden_samples(),), npz_damage, golden, share=4),
}


def judge(parser: Parser, raw: bytes) -> str:
    """Return what came of an input; only our own errors count as an answer."""
    try:
        return parser.parse(raw)
    except AgentError as err:
        return str(err.reason)
