"""Looks at the service for ``tinyward doctor``: systemd, /proc, the daemon's socket.

The rules this module keeps:
 * A board without systemd is no broken one; it is told how else to start.
 * Whoever may not look (another user, a container) is told so, and nothing is guessed.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from agent.cli.board_answers import ServerAnswer
from agent.cli.findings import Finding
from agent.cli.findings_service import (
    PROPERTIES,
    SERVICE,
    Slots,
    Unit,
    Worker,
    judge_daemon,
    judge_others,
    judge_server,
    judge_unit,
    judge_workers,
    parse_unit,
)
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError

# A busy Pi answers in 0.1 s; systemd itself gives up after 25 s.
ANSWER_S = 10.0
SLOT_FOLDER = "opt/tinyward"


class _WorkerState(msgspec.Struct, frozen=True):
    """A pipeline's worker in ``GET /v1/state``."""

    locks: dict[str, str] = {}


class _PipelineState(msgspec.Struct, frozen=True):
    """A pipeline in ``GET /v1/state``."""

    worker: _WorkerState = _WorkerState()


class _UpdateState(msgspec.Struct, frozen=True):
    """The update machine in ``GET /v1/state``."""

    ddi: ServerAnswer | None = None


class _State(msgspec.Struct, frozen=True):
    """``GET /v1/state``, as much as is needed here."""

    update: _UpdateState = _UpdateState()
    pipelines: dict[str, _PipelineState] = {}


def examine_service(
    root: Path = Path("/"), systemctl: str = "systemctl", config: Path | None = None
) -> list[Finding]:
    """Return what is to be said of the service and of the daemon that runs.

    Args:
        root: Where ``/proc`` and ``/run`` lie.
        systemctl: The program.
        config: The settings that were named: the daemon that runs with them is asked.
    """
    ask = partial(_ask_daemon, config)
    others = daemons(root)
    if not (root / "run/systemd/system").is_dir():  # as sd_booted(3) looks
        what = "systemd does not run this machine"
        todo = "Let what does start `tinyward run` at boot, and again when it ends."
        found = [Finding("service", "yellow", what, todo)]
        return found + (look_at_workers(ask) if others else [])
    unit = ask_systemd(systemctl)
    if isinstance(unit, Finding):
        return [unit]
    found = judge_unit(unit, look_at_slots(root))
    if unit.pid:
        found += look_at_daemon(unit.pid, root)
    found += judge_others(unit, [pid for pid in others if pid != unit.pid])
    return found + (look_at_workers(ask) if unit.pid or others else [])


def ask_systemd(systemctl: str = "systemctl") -> Unit | Finding:
    """Ask systemd about the service; a finding where it does not answer."""
    program = shutil.which(systemctl)
    words = ["show", f"--property={','.join(PROPERTIES)}", "--", SERVICE]
    try:
        if program is None:
            raise FileNotFoundError(f"{systemctl} is not installed")
        asked = subprocess.run(
            [program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_S,
            check=True,
        )
    except subprocess.CalledProcessError as err:
        said = err.stderr.decode(errors="replace").strip().splitlines()
        return _silent(said[-1] if said else f"exit code {err.returncode}")
    except (OSError, subprocess.TimeoutExpired) as err:
        return _silent(str(err))
    return parse_unit(asked.stdout.decode(errors="replace"))


def look_at_slots(root: Path) -> Slots:
    """Look at which slot is linked to, and at the marker of a trial."""
    folder = root / SLOT_FOLDER
    return Slots(
        _link(folder / "current"),
        _link(folder / "previous"),
        (folder / "trial").exists(),
    )


def look_at_daemon(pid: int, root: Path) -> list[Finding]:
    """Look at how the running daemon is confined; nothing if it has just ended."""
    try:
        status = (root / f"proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return []
    return [judge_daemon(status)]


def look_at_workers(ask: Callable[[], object]) -> list[Finding]:
    """Ask the daemon which layers hold on its workers, and what its server said.

    Args:
        ask: Returns ``GET /v1/state``.
    """
    try:
        state = msgspec.convert(ask(), _State)
    except (AgentError, msgspec.ValidationError) as err:
        todo = getattr(err, "todo", "") or "Use the tinyward of the running version."
        if os.geteuid() != 0:
            todo = "sudo tinyward doctor"
        return [Finding("sandbox", "yellow", f"workers: {err}", todo)]
    workers = [Worker(name, it.worker.locks) for name, it in state.pipelines.items()]
    return judge_workers(workers) + judge_server(state.update.ddi)


def daemons(root: Path = Path("/")) -> list[int]:
    """Return the processes that are ``tinyward run``, however they were started."""
    return sorted(pid for pid, words in _command_lines(root) if is_daemon(words))


def is_daemon(words: Sequence[str]) -> bool:
    """Whether a command line runs the daemon: as a script, or as a module.

    >>> is_daemon(["/opt/tinyward/a/bin/python", "/opt/tinyward/a/bin/tinyward", "run"])
    True
    >>> is_daemon(["vim", "tinyward", "run"])
    False
    """
    if words and "python" in words[0].rpartition("/")[2]:
        words = words[1:]
    while words and words[0] in {"-I", "-u", "-m"}:  # the flags we use ourselves
        words = words[1:]
    program = words[0].rpartition("/")[2] if words else ""
    return program in {"tinyward", "agent"} and list(words[1:2]) == ["run"]


def _command_lines(root: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield every process's number and words that we may see (proc_pid_cmdline(5))."""
    for path in (root / "proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended, or is none of ours
        yield int(path.name), line.decode(errors="replace").split("\0")


def _ask_daemon(config: Path | None) -> object:
    """Return ``GET /v1/state`` of the daemon that runs with these settings.

    Args:
        config: None means those of this machine's service.

    Raises:
        AgentError: It does not answer.
    """
    from agent.cli.reach import local_link

    link = local_link(config, None)
    try:
        return link.read_all("/v1/state")
    except DeviceError as err:
        if config is None or err.reason != Reason.UNREACHABLE:
            raise
        # What the link advises was done already: the settings were named.
        todo = f"Others run with other settings: tinyward run --config {config}"
        raise DeviceError(str(err), reason=err.reason, todo=todo) from err
    finally:
        link.close()


def _link(path: Path) -> str:
    """Return the name of what a link leads to; nothing without one."""
    try:
        return path.readlink().name
    except OSError:
        return ""


def _silent(why: str) -> Finding:
    """Return the finding for a systemd that does not answer."""
    todo = "sudo tinyward doctor, outside of containers and chroots"
    return Finding("service", "yellow", f"systemd does not answer: {why}", todo)
