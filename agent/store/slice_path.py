"""Which files a repository slice may have: a whitelist of paths, for the inbox.

The rules this module keeps:
 * ``metadata/NAME.json``, flat, ``targets/`` with folders, or an envelope of a sealed
   bundle, ``envelopes/MODEL/VERSION/BOARD``; nothing else. A segment is made of
   harmless ASCII and never begins with a dot, so ``..``, ``.``, hidden and temporary
   names, separators, NUL and everything a shell or a terminal would understand are
   refused by the same rule.
 * A path is checked before anything is compared with the disk.

>>> check_slice_path("metadata/2.root.json", 900)
>>> check_slice_path("targets/../2.root.json", 900)
Traceback (most recent call last):
agent.errors.RequestRefusedError: 'targets/../2.root.json' is no path of a slice
"""

import re

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.core.sealing import MAX_ENVELOPE_BYTES
from agent.errors import BundleRefusedError, RequestRefusedError

# Percent-encoded roles, ``<sha256>.<version>.bundle``, and names that tools like.
_SEGMENT = r"[0-9A-Za-z_%+@=,~-][0-9A-Za-z_%+@=,~.-]{0,199}"
_METADATA = re.compile(rf"metadata/{_SEGMENT}\.json\Z")
_TARGET = re.compile(rf"targets(/{_SEGMENT}){{1,8}}\Z")
_ENVELOPE = re.compile(rf"envelopes(/{_SEGMENT}){{3}}\Z")
MAX_PATH = 512  # characters; ``targets/models/<64>/<64>.<20>.bundle`` has 180
MAX_METADATA_BYTES = 5_000_000  # what python-tuf takes of the largest role
MAX_NAME = 200  # bytes of one segment; file systems take 255, and we add to it


def check_slice_path(path: str, length: int) -> None:
    """Stay silent if a slice may have a file of that path and length.

    Raises:
        RequestRefusedError: ``request``: no slice has such a path.
        BundleRefusedError: ``too_large``: no metadata, or envelope, is that long;
            ``length``.
    """
    metadata, envelope = _METADATA.match(path), _ENVELOPE.match(path)
    short = all(len(segment) <= MAX_NAME for segment in path.split("/"))
    known = metadata or envelope or _TARGET.match(path)
    if len(path) > MAX_PATH or not short or not known:
        raise RequestRefusedError(
            f"{path[:MAX_PATH]!r} is no path of a slice",
            reason=Reason.REQUEST,
            todo="Name a file below `metadata/` or `targets/` of a repository.",
        )
    if length < 1:
        raise _refused(f"{path} is empty", Reason.LENGTH)
    most = MAX_METADATA_BYTES if metadata else MAX_ENVELOPE_BYTES if envelope else 0
    if most and length > most:
        raise _refused(
            f"{path} has {length} bytes, at most {most} allowed", Reason.TOO_LARGE
        )


def _refused(what: str, reason: Reason) -> BundleRefusedError:
    """Return the error for a file of an impossible size."""
    return BundleRefusedError(what, reason=reason, todo=EXPLANATIONS[reason].todo)
