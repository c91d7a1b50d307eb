"""What pack.toml says of a model's origin becomes the bundle's provenance.json.

``provenance`` is a file (an in-toto statement, alone or in a DSSE envelope, taken as
it is) or a table, of which a statement about the packed variants is made.

The rules this module keeps:
 * A statement that is about other bytes than those packed is refused here already.
 * Digests of training data are computed where the data is at hand, else believed.
"""

import hashlib
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from agent.core.manifest import Manifest
from agent.core.provenance import (
    Approver,
    Code,
    DigestSet,
    Material,
    Origin,
    Score,
    check_provenance,
    render_statement,
    state_origin,
    subjects_of,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, SettingsError

Word = Annotated[str, Meta(max_length=1000)]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every table: immutable and strict."""


class TrainedOn(Table, frozen=True):
    """[[provenance.training_data]]: one file, archive or table of it.

    Attributes:
        file: Where it lies, relative to pack.toml: its digest is computed.
        sha256: Its digest, where it does not lie here.
    """

    name: Annotated[str, Meta(min_length=1, max_length=1000)]
    file: Word = ""
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$(?!\n)")] = ""
    uri: Word = ""


class OriginTable(Table, frozen=True):
    """[provenance]: see ``agent.core.provenance.Origin``."""

    training_data: Annotated[tuple[TrainedOn, ...], Meta(min_length=1, max_length=2000)]
    code: Code
    evaluation: Annotated[tuple[Score, ...], Meta(min_length=1, max_length=1000)]
    approver: Approver


def build_provenance(table: OriginTable, base: Path, manifest: Manifest) -> bytes:
    """Return provenance.json about the variants of a manifest.

    Raises:
        SettingsError: Training data cannot be read, or has no digest.
    """
    data = tuple(_material(at, one, base) for at, one in enumerate(table.training_data))
    origin = Origin(data, table.code, table.evaluation, table.approver)
    return render_statement(state_origin(subjects_of(manifest), origin))


def check_packed(raw: bytes, path: Path, manifest: Manifest) -> bytes:
    """Return a provenance.json that somebody else has made, if it is this model's.

    Raises:
        SettingsError: It makes no sense, or is about other bytes.
    """
    try:
        check_provenance(raw, manifest)
    except BundleRefusedError as err:
        raise SettingsError(f"{path}: {err}", reason=err.reason) from err
    return raw


def _material(at: int, one: TrainedOn, base: Path) -> Material:
    """Return one entry with its digest.

    Raises:
        SettingsError: ``settings``.
    """
    key = f"provenance.training_data[{at}]"
    if bool(one.file) == bool(one.sha256):
        what = f"{key}: name its `file` or its `sha256`, one of the two"
        raise SettingsError(what, reason=Reason.SETTINGS)
    sha256 = one.sha256
    if one.file:
        try:
            with (base / one.file).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as err:
            what = f"{key}.file: {base / one.file}: {err.strerror}"
            raise SettingsError(what, reason=Reason.SETTINGS) from err
    return Material(one.name, DigestSet(sha256), one.uri)
