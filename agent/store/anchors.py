"""This board's own baselines of its models' inputs, and alarms that are active.

A baseline says what a model's input looked like on this board after it was installed
there. Losing one costs some thousand samples, in which drift from this board's normal
is not seen; keeping a wrong one costs false alarms for ever. Alarms lie in a file of
their own, a few bytes long: they change more often.

The rules this module keeps:
 * A file is the old or the new one, whole, and private: it says something about what
   the board saw. Each baseline lies there with its digest.
 * What is damaged, foreign or too large is no baseline: it is left out with a warning,
   and collected anew. Nothing here keeps a model from running.
"""

import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent.core.profile import MAX_PROFILE_BYTES
from agent.core.watching import KeptAlarm
from agent.errors import DeviceError
from agent.store.atomic import Disk, device_errors, read_regular, replace_durably

log = logging.getLogger(__name__)
FOLDER = "anchors"
# The active model's, the previous one's, the factory's and a candidate's.
MAX_BASELINES = 4
# In base64 a baseline takes 4/3 of its bytes; names and digests take the rest.
MAX_FILE_BYTES = MAX_BASELINES * (MAX_PROFILE_BYTES * 4 // 3 + 1024)
MAX_ALARMS = 16  # two anchors of five scopes each; as many as a monitor may say
MAX_ALARMS_BYTES = 4096

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class _Baseline(Struct, frozen=True, forbid_unknown_fields=True):
    """One variant's baseline; ``sha256`` is that of ``site``."""

    variant: Digest
    sha256: Digest
    site: Annotated[bytes, Meta(min_length=1, max_length=MAX_PROFILE_BYTES)]


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in a file, the newest baseline last."""

    baselines: Annotated[tuple[_Baseline, ...], Meta(max_length=MAX_BASELINES)]
    schema: Literal[1] = 1


class _Alarms(Struct, frozen=True, forbid_unknown_fields=True):
    """The alarms of one variant; ``sha256`` is that of their JSON."""

    variant: Digest
    sha256: Digest
    alarms: Annotated[tuple[KeptAlarm, ...], Meta(max_length=MAX_ALARMS)]
    schema: Literal[1] = 1


class Anchors:
    """The baselines and alarms below a state directory.

    Args:
        state_dir: Where the store lies; its lock is ours, too.
        disk: Performs the steps on files; tests pass one that fails.
    """

    def __init__(self, state_dir: Path, disk: Disk | None = None) -> None:
        self._folder = state_dir / FOLDER
        self._disk = disk or Disk()

    def load(self, pipeline: str) -> dict[str, bytes]:
        """Return variant's SHA-256 -> baseline, the newest last.

        Never raises: what cannot be read is collected anew.
        """
        path = self._path(pipeline)
        try:
            with device_errors(path):
                raw = read_regular(self._disk, path, MAX_FILE_BYTES)
        except DeviceError as err:
            return _damaged(pipeline, str(err))
        if raw is None:
            # Nothing is there, the usual case; or too much, which is no file of ours.
            there = path.is_symlink() or path.exists()
            return _damaged(pipeline, "no file of ours") if there else {}
        try:
            kept = msgspec.json.decode(raw, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
            return _damaged(pipeline, str(err))
        good = [it for it in kept.baselines if sha256(it.site).hexdigest() == it.sha256]
        if len(good) < len(kept.baselines):
            _damaged(pipeline, "a baseline is not what its digest says")
        return {it.variant: it.site for it in good}

    def save(self, pipeline: str, baselines: Mapping[str, bytes]) -> None:
        """Keep these baselines of a pipeline durably, and no others.

        Args:
            pipeline: Its name.
            baselines: Variant's SHA-256 -> baseline; of too many the first are left
                out. None at all removes the file.

        Raises:
            DeviceError: ``disk_full``, ``read_only``...: what was there is there still.
        """
        self._replace(self._path(pipeline), _render(baselines) if baselines else b"")

    def load_alarms(self, pipeline: str) -> tuple[str, tuple[KeptAlarm, ...]]:
        """Return the SHA-256 of a variant, and its alarms that were active.

        Never raises: what cannot be read is found again, if it is there still.
        """
        path = self._alarms_path(pipeline)
        try:
            with device_errors(path):
                raw = read_regular(self._disk, path, MAX_ALARMS_BYTES)
            if raw is None and not (path.is_symlink() or path.exists()):
                return "", ()
            kept = msgspec.json.decode(raw or b"", type=_Alarms)
        except (DeviceError, ValueError, RecursionError) as err:
            _damaged(pipeline, str(err))
            return "", ()
        if _digest(kept.alarms) != kept.sha256:
            _damaged(pipeline, "the alarms are not what their digest says")
            return "", ()
        return kept.variant, kept.alarms

    def save_alarms(
        self, pipeline: str, variant: str, alarms: tuple[KeptAlarm, ...]
    ) -> None:
        """Keep these alarms of a variant durably, and no others; none: no file.

        Raises:
            DeviceError: ``disk_full``, ``read_only``...: what was there is there still.
        """
        alarms = alarms[:MAX_ALARMS]
        kept = _Alarms(variant, _digest(alarms), alarms)
        content = msgspec.json.encode(kept) if alarms else b""
        self._replace(self._alarms_path(pipeline), content)

    def _replace(self, path: Path, content: bytes) -> None:
        """Let a file have this content, or be no more if there is none.

        Raises:
            DeviceError: See ``agent.store.atomic``.
        """
        with device_errors(path):
            if not content:
                self._disk.remove(path)
                if self._folder.is_dir():
                    self._disk.sync_directory(self._folder)
                return
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                self._disk.sync_directory(self._folder.parent)
            replace_durably(self._disk, path, content)

    def _path(self, pipeline: str) -> Path:
        """Return where a pipeline's baselines lie; settings let no name climb out."""
        return self._folder / f"{pipeline}.json"

    def _alarms_path(self, pipeline: str) -> Path:
        """Return where its alarms lie: no pipeline's name has a dot in it."""
        return self._folder / f"{pipeline}.alarms"


def _render(baselines: Mapping[str, bytes]) -> bytes:
    """Return a file's content."""
    kept = [
        _Baseline(variant, sha256(site).hexdigest(), site)
        for variant, site in baselines.items()
    ]
    return msgspec.json.encode(_File(tuple(kept[-MAX_BASELINES:])))


def _digest(alarms: tuple[KeptAlarm, ...]) -> str:
    """Return what alarms are known by: a bit that fell over is no alarm."""
    return sha256(msgspec.json.encode(alarms)).hexdigest()


def _damaged(pipeline: str, detail: str) -> dict[str, bytes]:
    """Warn of what cannot be used; return that there is nothing."""
    log.warning(
        "monitor.anchor_damaged", extra={"pipeline": pipeline, "detail": detail}
    )
    return {}
