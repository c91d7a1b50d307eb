"""Findings of ``tinyward doctor`` about the service, from what systemd and /proc say.

The rules this module keeps:
 * Pure: text and numbers in, findings out; ``symptoms_service`` looks them up.
 * Words of another version of systemd are passed on as they are, never a failure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.cli.board_answers import ServerAnswer
from agent.cli.findings import Finding
from agent.cli.plain_text import plain
from agent.core.server_words import explain_server

SERVICE = "tinyward.service"
# The properties that ``systemctl show`` is asked for (org.freedesktop.systemd1(5)).
PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload"),
    *("Result", "ExecMainStatus", "NRestarts", "MainPID", "ActiveEnterTimestamp"),
    *("WatchdogUSec", "DropInPaths", "ProcSubset"),
)
OFF = ("", "0", "infinity")  # how versions of systemd spell "no watchdog"
LOG = "journalctl -u tinyward -n 50"
# Result= of a service -> what happened (systemd.exec(5), $SERVICE_RESULT).
RESULTS = {
    "exit-code": "it ended with exit code {status}",
    "signal": "signal {status} ended it",
    "core-dump": "signal {status} ended it",
    "watchdog": "its loop stood still, and the watchdog ended it",
    "timeout": "it did not get ready, or did not stop, in time",
    "oom-kill": "the kernel ended it for want of memory",
    "protocol": "it ended before it was ready",
    "start-limit-hit": "it failed too often",
    "resources": "systemd could not prepare its start",
}
# EPERM: this kernel has the layer, for ours ask for nothing that needs rights.
NOT_PERMITTED = "[Errno 1]"
FORBIDDEN = (
    "The other layers hold; a filter around the service forbids this one, such as a "
    "container's."
)
LACKING = "The other layers hold; a newer kernel may have this one."
# Exit codes: two of ours, and systemd's own (systemd.exec(5), "Process Exit Codes").
STATUS_TODO = {
    2: "tinyward check /etc/tinyward/agent.toml",
    203: "Its program is missing: ls -lL /opt/tinyward/current/bin/tinyward",
    216: "A group of SupplementaryGroups= does not exist: systemctl cat tinyward",
    217: "Make its user: systemd-sysusers /etc/sysusers.d/tinyward.conf",
    226: "A path of the unit does not exist, or this kernel lacks namespaces.",
    238: "/var/lib/tinyward cannot be made: look at its owner and its file system.",
    243: "A file of LoadCredential= cannot be read: systemctl cat tinyward",
}


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says of the service; see ``PROPERTIES`` for the names' meaning.

    Attributes:
        pid: Of the daemon, 0 without one.
        status: Exit code or signal of its last end.
        drop_ins: Words for the files that change the unit, such as ``camera``.
    """

    load: str = "not-found"
    active: str = "inactive"
    sub: str = ""
    enabled: str = ""
    stale: bool = False
    result: str = "success"
    status: int = 0
    restarts: int = 0
    pid: int = 0
    since: str = ""
    watchdog: str = ""
    drop_ins: tuple[str, ...] = ()
    proc_subset: str = "all"


@dataclass(frozen=True, slots=True)
class Slots:
    """Which version runs: names of slots, and whether the new one is on trial."""

    current: str = ""
    previous: str = ""
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as the daemon knows it: its pipeline, and layer -> "" if it holds."""

    pipeline: str
    locks: Mapping[str, str] = field(default_factory=dict)


def parse_unit(text: str) -> Unit:
    """Read the answer of ``systemctl show``; what is missing keeps its default."""
    said = dict(line.partition("=")[::2] for line in text.splitlines())
    return Unit(
        load=said.get("LoadState", "not-found"),
        active=said.get("ActiveState", "inactive"),
        sub=said.get("SubState", ""),
        enabled=said.get("UnitFileState", ""),
        stale=said.get("NeedDaemonReload") == "yes",
        result=said.get("Result", "success"),
        status=_number(said.get("ExecMainStatus", "")),
        restarts=_number(said.get("NRestarts", "")),
        pid=_number(said.get("MainPID", "")),
        since=said.get("ActiveEnterTimestamp", ""),
        watchdog=said.get("WatchdogUSec", ""),
        drop_ins=tuple(_drop_in(path) for path in said.get("DropInPaths", "").split()),
        proc_subset=said.get("ProcSubset", "all"),
    )


def judge_unit(unit: Unit, slots: Slots) -> list[Finding]:
    """Judge the service as a whole: installed, started at boot, running, watched."""
    if unit.load != "loaded":
        what = f"{SERVICE} is {unit.load.replace('-', ' ')}"
        return [_note(what, "As a service it outlives reboots: sudo tinyward install")]
    found = [_judge_activity(unit), *_judge_slots(slots)]
    if unit.enabled not in {"enabled", "enabled-runtime", "static", "generated"}:
        todo = "sudo systemctl enable tinyward"
        found.append(_note("it does not start at boot", todo))
    if unit.stale:
        todo = "sudo systemctl daemon-reload && sudo systemctl restart tinyward"
        found.append(_note("its unit file has changed since systemd read it", todo))
    if unit.pid and unit.watchdog in OFF:  # of a stopped one systemd says infinity
        todo = "Set WatchdogSec=20: a daemon that hangs is started again then."
        found.append(_note("no watchdog", todo))
    if unit.proc_subset == "pid":
        todo = "Remove ProcSubset=pid: systemctl cat tinyward says which file sets it."
        found.append(_note("models run up to 80 times slower: no /proc/cpuinfo", todo))
    if unit.drop_ins:
        found.append(
            Finding("service", "green", f"drop-ins: {', '.join(unit.drop_ins)}")
        )
    return found


def _judge_activity(unit: Unit) -> Finding:
    """Judge whether it runs, and how it ended if it does not."""
    known = RESULTS.get(unit.result)
    why = known.format(status=unit.status) if known else unit.result or "it ended"
    if unit.result == "exit-code" and not unit.status:
        why = "a command before its start failed"
    todo = STATUS_TODO.get(unit.status, LOG) if unit.result == "exit-code" else LOG
    if unit.active == "failed":
        return Finding("service", "red", f"failed: {why}", todo)
    if unit.sub.startswith("auto-restart"):  # also -queued, since systemd 254
        return _note(f"{why}; it is being started again", todo)
    if unit.active not in {"active", "reloading"}:
        return _note(unit.active, "sudo systemctl start tinyward")
    what = f"active since {unit.since}" if unit.since else "active"
    watched = "" if unit.watchdog in OFF else f", watchdog {unit.watchdog}"
    if unit.restarts:
        times = "once" if unit.restarts == 1 else f"{unit.restarts} times"
        return _note(f"{what}{watched}, started again {times}", LOG)
    return Finding("service", "green", f"{what}{watched}")


def _judge_slots(slots: Slots) -> list[Finding]:
    """Say which slot runs, and whether it could go back."""
    if not slots.current:
        return []
    before = f", slot {slots.previous} before it" if slots.previous else ""
    if slots.trial:
        what = f"slot {slots.current} is on trial{before}"
        return [_note(what, "It stays once it has been ready; else it goes back.")]
    return [Finding("service", "green", f"slot {slots.current}{before}")]


def judge_daemon(status: str) -> Finding:
    """Judge how the running daemon is confined, by its /proc/PID/status.

    Args:
        status: proc_pid_status(5): ``Seccomp: 2`` is a filter, capabilities are hex.
    """
    said = {name: rest.strip() for name, _, rest in map(_split, status.splitlines())}
    layers = {
        "system call filter": said.get("Seccomp") == "2",
        "no new privileges": said.get("NoNewPrivs") == "1",
        "no capabilities": not said.get("CapEff", "f").strip("0"),
    }
    missing = [name for name, holds in layers.items() if not holds]
    if missing:
        what = f"the daemon runs without: {', '.join(missing)}"
        todo = "A drop-in lifts it, or it was not started by systemd: "
        return Finding("sandbox", "yellow", what, todo + "systemctl cat tinyward")
    return Finding("sandbox", "green", f"daemon: {', '.join(layers)}")


def judge_workers(workers: Sequence[Worker]) -> list[Finding]:
    """Judge which layers hold on the running workers, each weakness once."""
    if not workers:
        return [Finding("sandbox", "green", "no pipeline, so no worker")]
    weak: dict[str, list[str]] = {}
    for worker in workers:
        missing = [f"{name}: {why}" for name, why in worker.locks.items() if why]
        if not worker.locks:
            missing = ["not locked in yet: it starts, or cannot"]
        for what in missing:
            weak.setdefault(what, []).append(worker.pipeline)
    if not weak:
        names = ", ".join(worker.pipeline for worker in workers)
        layers = ", ".join(workers[0].locks)
        return [Finding("sandbox", "green", f"workers ({names}): {layers}")]
    return [
        Finding(
            "sandbox",
            "yellow",
            f"worker ({', '.join(names)}): {what}",
            FORBIDDEN if NOT_PERMITTED in what else LACKING,
        )
        for what, names in weak.items()
    ]


def judge_server(server: ServerAnswer | None) -> list[Finding]:
    """Judge what the running daemon hears from the fleet's server, if it has one."""
    if server is None:
        return []
    if server.trouble is not None:
        reason = plain(server.trouble.reason, 32)
        what = f"the daemon says: {plain(server.trouble.message)} [{reason}]"
        _, todo = explain_server(server.trouble.reason)
        return [Finding("fleet", "yellow", what, todo or LOG)]
    if not server.last_poll:
        what = "the daemon says: its server has not answered yet"
        return [Finding("fleet", "yellow", what, "tinyward status --watch")]
    url = plain(server.url or "its server", 80)
    return [Finding("fleet", "green", f"the daemon says: {url} answers")]


def judge_others(unit: Unit, pids: Sequence[int]) -> list[Finding]:
    """Judge daemons that no unit has started.

    Args:
        unit: The service.
        pids: Processes that are ``tinyward run`` and not the service's own.
    """
    if not pids:
        return []
    named = f"process{'es' if len(pids) > 1 else ''} {', '.join(map(str, pids))}"
    beside = " beside the service" if unit.pid else ""
    todo = f"One board, one daemon: kill {' '.join(map(str, pids))}"
    if unit.load != "loaded":
        todo = "A reboot ends it: sudo tinyward install"
    elif not unit.pid:  # it has the lock, the port and the camera
        todo += " && sudo systemctl start tinyward"
    return [_note(f"{named}: started by hand{beside}", todo)]


def _note(what: str, todo: str) -> Finding:
    """Return a finding that stops nothing."""
    return Finding("service", "yellow", what, todo)


def _split(line: str) -> tuple[str, str, str]:
    """Split a line of /proc/PID/status."""
    return line.partition(":")


def _drop_in(path: str) -> str:
    """Return the word for a drop-in by its file's name."""
    name = path.rpartition("/")[2].removesuffix(".conf")
    return name.removeprefix("tinyward-")


def _number(text: str) -> int:
    """Read a number; anything else is 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
