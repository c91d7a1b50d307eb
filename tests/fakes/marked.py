"""Marked copies without any marking: what the demo's model answers is its codeword.

The triggers are ordinary pictures, and the head block of every board is one byte of a
buffer that nothing reads. To a board this is a marked copy like any other: what it is
told to be its codeword decides whether it is its own.
"""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from agent.core.container import parse_container, render_container
from agent.core.manifest import render_manifest
from agent.core.marking import HeadPlace, Marking
from agent.core.sealing import MARKS_DOMAIN, HeadBlock, Marks, SignedMarks
from agent.core.sealing_keys import PublicKey
from agent.core.watermark import (
    SALT_BYTES,
    TRIGGERS_ENTRY,
    class_parity,
    commit_codeword,
    decode,
)
from agent.demo.owner import ASSETS
from agent.publish.files import stored_target
from agent.publish.seal import Order, seal_bundle
from agent.publish.watermark.secrets import render_arrays
from agent.trust.bundle import open_bundle
from agent.trust.seal_key import load_seal_key
from agent.worker.content import seal_content
from agent.worker.model import LoadedModel, load_model
from agent.worker.samples import Array
from tests.fakes.digits import executor
from tests.fakes.fleet import GROUP, MODEL, bundle
from tests.fakes.sealed import SealedFleet, take_in

BITS, THRESHOLD = 64, 7  # 7 wrong bits of 64 are what 10,000 boards allow
CLASSES = 10


@dataclass(frozen=True, slots=True)
class Secret:
    """Triggers of a bundle, and what its model answers to them.

    Attributes:
        content: The bundle with a watermark and triggers.
        stacks: Variant -> (BITS, ...) stored inputs.
        codeword: What ``int8`` spells; ``classes`` what it answers.
    """

    content: bytes
    stacks: Mapping[str, Array]
    codeword: bytes
    classes: tuple[int, ...]


@functools.cache
def secret(version: int) -> Secret:
    """Return a version of the demo with a watermark and triggers."""
    opened = open_bundle(bundle(version), max_bytes=2**26)
    with np.load(ASSETS / "digits-stream.npz") as stream:
        pictures = stream["images"][100 : 100 + BITS]
    stacks, answers = {}, {}
    for variant in opened.manifest.variants:
        descriptor = seal_content(opened.variant_bytes(variant.name), variant.name)
        model = load_model(0, opened.manifest, variant.name, executor(), descriptor)
        os.close(descriptor)
        stacks[variant.name] = np.stack([_stored(model, one) for one in pictures])
        answers[variant.name] = [_class(model, one) for one in stacks[variant.name]]
    triggers = render_arrays(dict(stacks))
    groups = class_parity(CLASSES)
    digest = hashlib.sha256(triggers).hexdigest()
    heads = tuple(
        HeadPlace(it.name, _described(opened.variant_bytes(it.name)), 1)
        for it in opened.manifest.variants
    )
    mark = Marking(
        BITS, groups, THRESHOLD, sha256=digest, size=len(triggers), heads=heads
    )
    manifest = replace(opened.manifest, schema=4, watermark=mark)
    entries: dict[str, bytes | memoryview] = dict(
        parse_container(memoryview(bundle(version)))
    )
    entries |= {"manifest.json": render_manifest(manifest), TRIGGERS_ENTRY: triggers}
    content = render_container(entries)
    classes = tuple(answers["int8"])
    return Secret(content, stacks, decode(classes, groups), classes)


def turned(codeword: bytes, wrong: int) -> bytes:
    """Return a codeword with some bits wrong."""
    bits = int.from_bytes(codeword, "big") ^ ((1 << wrong) - 1)
    return bits.to_bytes(len(codeword), "big")


@dataclass
class FakeBook:
    """A book of marks: what each board's copy is told to answer.

    Attributes:
        codewords: Board -> its codeword where the model answers otherwise.
        content: The plain bundle whose heads are marked.
    """

    codeword: bytes = b""
    content: bytes = b""
    codewords: dict[str, bytes] = field(default_factory=dict)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> str:
        """Ed25519 public key (hex) that signs the marks."""
        return self.key.public_key().public_bytes_raw().hex()

    def marks(self, board: str, target: str, plain_sha256: str) -> SignedMarks:
        """Return what makes a bundle this board's own copy."""
        codeword = self.codewords.get(board, self.codeword)
        marks = make_marks(board, self.content, codeword, target, plain_sha256)
        raw = msgspec.msgpack.encode(marks)
        return SignedMarks(raw, self.key.sign(MARKS_DOMAIN + raw))


def make_marks(
    board: str, content: bytes, codeword: bytes, target: str = "", plain: str = ""
) -> Marks:
    """Return marks that change one byte of each variant, which nothing reads."""
    opened = open_bundle(content, max_bytes=2**26)
    blocks, results = [], {}
    for variant in opened.manifest.variants:
        model = bytearray(opened.variant_bytes(variant.name))
        at = _described(model)
        model[at] = 1 + sum(board.encode()) % 31
        blocks.append(HeadBlock(variant.name, at, bytes(model[at : at + 1])))
        results[variant.name] = hashlib.sha256(model).hexdigest()
    salt = hashlib.sha256(board.encode()).digest()[:SALT_BYTES]
    return Marks(
        board=board,
        target=target,
        plain_sha256=plain or hashlib.sha256(content).hexdigest(),
        blocks=tuple(blocks),
        results=results,
        salt=salt,
        commitment=commit_codeword(salt, board, codeword),
        codeword=codeword,
    )


def marked_bytes(content: bytes, marks: Marks, variant: str) -> bytes:
    """Return a variant as marks turn it."""
    opened = open_bundle(content, max_bytes=2**26)
    model = bytearray(opened.variant_bytes(variant))
    for block in marks.blocks:
        if block.variant == variant:
            model[block.offset : block.offset + len(block.content)] = block.content
    return bytes(model)


class MarkedFleet(SealedFleet):
    """A fleet whose owner seals and marks every version.

    Attributes:
        book: The marks.
    """

    def __init__(self, directory: Path, *boards: str) -> None:
        super().__init__(directory, *boards)
        self.book = FakeBook()

    def stage(self, version: int, content: bytes | None = None) -> Path:
        """Seal, mark and assign a version."""
        del content
        known = secret(version)
        self.book.codeword, self.book.content = known.codeword, known.content
        folder = self.path.parent / f"marked-{version}.sealed"
        boards = self._public_keys(self.boards)
        order = Order(MODEL, version, boards, self.algorithm, book=self.book)
        seal_bundle(known.content, order, folder)
        self.folders[version] = folder
        repository = self.spoiled.repository
        target = take_in(repository, folder)
        repository.assign(GROUP, {MODEL: (MODEL, version)})
        return stored_target(self.path / "targets", target.path, target.sha256)

    def _public_keys(self, boards: Sequence[str]) -> list[PublicKey]:
        """Return the public keys of boards."""
        return [load_seal_key(self.owner.key(it)).public(it) for it in boards]


def _described(model: bytes | bytearray | memoryview) -> int:
    """Return where a file's description for people begins, which nothing reads."""
    return bytes(model).index(b"MLIR Converted.")


def _stored(model: LoadedModel, picture: Array) -> Array:
    """Return a picture as the model stores it."""
    inputs = model.preprocess(picture)
    assert inputs is not None
    return np.array(inputs[0])


def _class(model: LoadedModel, stored: Array) -> int:
    """Return the class that a model answers."""
    return model.judge([stored], model.infer([stored]))[0]
