"""What is attached to this board, for ``tinyward doctor``: accelerators and sources.

The rules this module keeps:
 * It reads and looks, and opens no device: a camera belongs to one program at a time.
 * What is not there is no fault; what is there and cannot be used is.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from grp import getgrgid
from pathlib import Path

from agent.cli.findings import Finding
from agent.core.executors import DelegateFile

LIBRARY_FOLDERS = ("usr/lib", "usr/local/lib", "opt")
DELEGATES = {
    "libedgetpu.so.1": "Coral Edge TPU",
    "libteflon.so": "NPU by Mesa's Teflon",
    "libvx_delegate.so": "NXP and VeriSilicon NPU",
    "libethosu_delegate.so": "Arm Ethos-U",
    "libarmnnDelegate.so": "Arm NN",
    "libQnnTFLiteDelegate.so": "Qualcomm NPU",
    "libtensorflowlite_gpu_delegate.so": "GPU",
}
# Program -> the Debian package that has it; rpicam-apps is Raspberry Pi OS's own.
PROGRAMS = {
    "rpicam-vid": "rpicam-apps",
    "ffmpeg": "ffmpeg",
    "gst-launch-1.0": "gstreamer1.0-tools",
    "v4l2-ctl": "v4l-utils",
    "arecord": "alsa-utils",
}
# What records, by its name below /dev: cameras, and the capture side of sound cards.
DEVICES = {"cameras": "video*", "microphones": "snd/pcmC*D*c"}


def look_at_delegates(
    allowed: Sequence[DelegateFile] = (), root: Path = Path("/")
) -> list[Finding]:
    """Look at the libraries that the settings allow, and for others that are there."""
    found = [_judge_allowed(delegate) for delegate in allowed]
    paths = {delegate.path for delegate in allowed}
    for path in _libraries(root):
        if str(path) not in paths:
            what = f"{DELEGATES[path.name]}: {path}, not in the settings"
            todo = f"Allow it: [[delegate]] with sha256sum {path}"
            found.append(Finding("delegate", "green", what, todo))
    nothing = Finding("delegate", "green", "none: models run on the processor")
    return found or [nothing]


def look_at_programs(
    which: Callable[[str], str | None] = shutil.which,
) -> Iterator[Finding]:
    """Look for the programs that ``command`` sources are made of."""
    there = [name for name in PROGRAMS if which(name)]
    missing = [name for name in PROGRAMS if name not in there]
    if there:
        yield Finding("sources", "green", ", ".join(there))
    if missing:
        packages = " ".join(PROGRAMS[name] for name in missing)
        what = f"not there: {', '.join(missing)}"
        todo = f"Where a source needs one: apt install {packages}"
        yield Finding("sources", "yellow", what, todo)


def look_at_devices(
    root: Path = Path("/"), may_use: Callable[[Path], bool] | None = None
) -> Iterator[Finding]:
    """Look for cameras and microphones, and whether this user may use them."""
    allowed = may_use or _may_use
    for topic, pattern in DEVICES.items():
        devices = sorted((root / "dev").glob(pattern))
        closed = [device for device in devices if not allowed(device)]
        for device in closed:
            group = _group(device)
            todo = f"usermod -aG {group} USER for the daemon's user, then log in again"
            what = f"{device} is closed to this user, its group is {group}"
            yield Finding(topic, "yellow", what, todo)
        usable = ", ".join(str(device) for device in devices if device not in closed)
        if usable or not devices:
            yield Finding(topic, "green", usable or f"no /dev/{pattern}")


def _judge_allowed(delegate: DelegateFile) -> Finding:
    """Compare a library with what the settings say about it."""
    where = f"{delegate.name}: {delegate.path}"
    if not Path(delegate.path).is_absolute():
        todo = "Write the whole path, from / on."
        return Finding("delegate", "yellow", f"{where} is not absolute", todo)
    try:
        with Path(delegate.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        todo = "Install it, or correct `path` of its [[delegate]] table."
        why = err.strerror or "it cannot be read"
        return Finding("delegate", "yellow", f"{where}: {why}", todo)
    if digest != delegate.sha256:
        todo = f'If that is meant: sha256 = "{digest}"'
        what = f"{where} has another sha256 than the settings say"
        return Finding("delegate", "yellow", what, todo)
    return Finding("delegate", "green", f"{where}, as the settings say")


def _libraries(root: Path) -> Iterator[Path]:
    """Yield delegate libraries in the usual places."""
    for folder in LIBRARY_FOLDERS:
        for depth in ("*", "*/*"):
            for path in sorted((root / folder).glob(depth)):
                if path.name in DELEGATES:
                    yield path


def _may_use(path: Path) -> bool:
    """Whether this user may record from a device."""
    return os.access(path, os.R_OK | os.W_OK)


def _group(path: Path) -> str:
    """Return the name of the group that may use a device."""
    number = path.stat().st_gid
    try:
        return getgrgid(number).gr_name
    except KeyError:
        return str(number)
