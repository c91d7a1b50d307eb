"""Tapped samples: a sample and what was said about it, as one record of a shadow ring.

A record is a head in msgpack, its length before it, then the bytes of every array, each
on a boundary of ``ALIGNMENT``.

Law: ``parse_record(b"".join(render_record(t)))`` is ``t`` again.
"""

import struct

import msgspec
import numpy as np
from msgspec import Struct

from agent.core.shadow_ring import Piece
from agent.worker.opinion import Opinion
from agent.worker.samples import Array, Sample

ALIGNMENT = 16  # what numpy and the runtimes expect of an array's first byte
LENGTH = struct.Struct("<I")


class Tapped(Struct, frozen=True):
    """One sample of the pipeline.

    Attributes:
        seq: Its number.
        sample: As the source gave it.
        opinion: What the active model said; None if it did not answer.
        total_ns: How long that took.
    """

    seq: int
    sample: Sample
    opinion: Opinion | None
    total_ns: int


class _Head(Struct, frozen=True, array_like=True):
    """What is known of a record before its arrays; ``names`` only of dicts."""

    seq: int
    total_ns: int
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    names: tuple[str, ...] | None
    opinion: tuple[str, tuple[str, ...], float] | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Head)


def render_record(tapped: Tapped) -> list[Piece]:
    """Return the pieces of a record; arrays are not copied where that is possible.

    Raises:
        TypeError: An array holds something else than numbers.
    """
    named = isinstance(tapped.sample, dict)
    sample = tapped.sample if isinstance(tapped.sample, dict) else {"": tapped.sample}
    said = tapped.opinion
    arrays = [*sample.values(), *(said.outputs if said else ())]
    if any(array.dtype.kind not in "fiub" for array in arrays):
        raise TypeError("only numbers can be shadowed")
    head = _encoder.encode(
        _Head(
            tapped.seq,
            tapped.total_ns,
            tuple((array.dtype.str, array.shape) for array in arrays),
            tuple(sample) if named else None,
            (said.task, said.labels, said.score) if said else None,
        )
    )
    pieces: list[Piece] = [LENGTH.pack(len(head)) + head]
    length = len(pieces[0])
    for array in arrays:
        pieces.append(bytes(-length % ALIGNMENT))
        length += len(pieces[-1]) + array.nbytes
        pieces.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return pieces


def parse_record(record: bytes) -> Tapped:
    """Return what was tapped; arrays are views of the record."""
    (length,) = LENGTH.unpack_from(record)
    at = LENGTH.size + length
    head = _decoder.decode(record[LENGTH.size : at])
    arrays: list[Array] = []
    for dtype, shape in head.arrays:
        at += -at % ALIGNMENT
        count = int(np.prod(shape, dtype=np.int64))
        values: Array = (
            np.frombuffer(record, dtype, count, at) if count else _none(dtype)
        )
        arrays.append(values.reshape(shape))
        at += values.nbytes
    names = head.names
    sample = arrays[0] if names is None else dict(zip(names, arrays, strict=False))
    rest = arrays[1 if names is None else len(names) :]
    opinion = Opinion(*head.opinion, rest) if head.opinion else None
    return Tapped(head.seq, sample, opinion, head.total_ns)


def _none(dtype: str) -> Array:
    """Return an array without values."""
    return np.empty(0, dtype)
