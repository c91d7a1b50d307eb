"""Findings of ``tinyward doctor``: a topic, a mark, what is so, and what to do."""

from dataclasses import dataclass
from typing import Literal

Mark = Literal["green", "yellow", "red"]
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: What it is about, one word.
        mark: ``green`` as it should be, ``yellow`` runs all the same, ``red`` does not.
        what: What was found, one line.
        todo: How to get what is missing; empty where nothing is.
    """

    topic: str
    mark: Mark
    what: str
    todo: str = ""


def judge_engines(working: dict[str, str], broken: dict[str, str]) -> list[Finding]:
    """Judge the runtimes: one has to work.

    Args:
        working: Name -> version of those that import.
        broken: Name -> why, of those that are installed and do not.
    """
    found = [Finding("runtime", "green", f"{n} {v}") for n, v in working.items()]
    mark: Mark = "yellow" if working else "red"
    found += [
        Finding("runtime", mark, f"{name} does not work: {why}", todo=_RUNTIME_TODO)
        for name, why in broken.items()
    ]
    if not working and not broken:
        found.append(Finding("runtime", "red", "none is installed", _RUNTIME_TODO))
    return found


def judge_cpu(features: tuple[str, ...] | None) -> Finding:
    """Judge what fast kernels need of the processor."""
    if features is None:
        return Finding(
            "processor",
            "yellow",
            "/proc/cpuinfo cannot be read: models run up to 80 times slower; on Arm "
            "LiteRT dies",
            "Remove ProcSubset=pid, or what else hides it.",
        )
    if not features:
        return Finding(
            "processor",
            "yellow",
            "none of the features that fast kernels need",
            "An emulator may show its host's /proc/cpuinfo: on Arm LiteRT then dies.",
        )
    return Finding("processor", "green", " ".join(features))


def judge_memory(available: int, total: int, allowed: int) -> Finding:
    """Judge the memory: daemon and worker take about 100 MB with a small model.

    Args:
        available: Bytes the machine could give now.
        total: Bytes the machine has.
        allowed: Bytes that the control groups still allow.
    """
    left = min(available, allowed)
    what = f"{left // MB} MB available of {total // MB} MB"
    if allowed < available:
        what += " (limited by a control group)"
    if left < 80 * MB:
        return Finding("memory", "red", what, "Free memory, or raise MemoryMax=.")
    if left < 200 * MB:
        return Finding("memory", "yellow", what, "Only small models will fit.")
    return Finding("memory", "green", what)


def judge_clock(
    *, now: float, built: float, synchronised: bool | None, battery: bool
) -> Finding:
    """Judge the clock: expiry of signed metadata is told by it.

    Args:
        now: Unix seconds by the system clock.
        built: Unix seconds when this package was installed: no time is before.
        synchronised: Whether somebody sets the clock; None if nobody can tell.
        battery: Whether it survives a power cut.
    """
    kept = "has a battery" if battery else "no battery"
    if now < built:
        return Finding(
            "clock",
            "yellow",
            f"before the day this package was installed, {kept}",
            "Set it, or start an NTP client; until then verified times are used.",
        )
    if synchronised:
        return Finding("clock", "green", f"synchronised, {kept}")
    state = (
        "not synchronised" if synchronised is False else "synchronised by nobody knows"
    )
    todo = "Start an NTP client: timedatectl set-ntp true"
    return Finding("clock", "yellow", f"{state}, {kept}", todo)


def judge_layer(name: str, missing: str) -> Finding:
    """Judge one sandbox layer of the worker; ``missing`` says why it is not there."""
    if not missing:
        return Finding("sandbox", "green", f"this kernel: {name}")
    todo = _LAYER_TODO.get(name, "A newer kernel has it; the other layers hold.")
    return Finding("sandbox", "yellow", f"this kernel: {name}: {missing}", todo)


_RUNTIME_TODO = (
    "pip install ai-edge-litert (64-bit, Python 3.10 to 3.14), or "
    "tflite-runtime==2.14.0 'numpy<2' (Python 3.11, also 32-bit Arm)"
)
_LAYER_TODO = {
    "seccomp": "apt install libseccomp2",
    "landlock": "Linux 5.13 with lsm=landlock,... on the kernel's command line.",
}
