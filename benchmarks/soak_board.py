"""The board of a soak: two pipelines, one of them never hit; looks at it, and faults.

The rules this module keeps:
 * Faults hit the pipeline ``full`` alone, which answers as fast as it can. ``steady``
   has the same updates and the same worker from the first to the last second, so that
   its memory can be followed for as long as the daemon's.
 * It is looked at from outside: over its two listeners, and in ``/proc``.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from agent.core.manifest import TrialRules
from benchmarks.boards import RealBoard, real_board
from benchmarks.server import served
from benchmarks.soak_looks import Look, Usage, answered, fallen, parse_counters
from benchmarks.subjects import subject

FULL, STEADY = "full", "steady"
PIPELINES = (FULL, STEADY)
MODEL = "kws"
# Longer than a busy machine stalls a healthy worker.
DEADLINE_S = 2.0
# As an owner tidies up: metadata that grows with every version is no leak of the board.
LISTED = 6
SETTINGS = """
state_dir = "{here}/state"
[[pipeline]]
name = "full"
model = "{model}"
source = {{kind = "files", path = "{samples}", loop = true, memory = true}}
deadline_ms = {deadline_ms}
[[pipeline]]
name = "steady"
model = "{model}"
source = {{kind = "files", path = "{samples}", loop = true, memory = true, rate = 200}}
deadline_ms = {deadline_ms}
[supervise]
crash_limit = 100  # it is we who kill: the model is not to blame
healthy_s = 20.0
max_backoff_s = 0.5
[update]
repository = "{repository}"
root = "{here}/root.json"
poll_s = 1.0
[local]
listen = "127.0.0.1:0"
socket = "{here}/control.sock"
"""


class SoakBoard:
    """A board under load, and its fleet's owner.

    Args:
        board: The board; ``rules`` what its candidates must go through.
    """

    def __init__(self, board: RealBoard, rules: TrialRules) -> None:
        self._board = board
        self._rules = rules
        self._versions = dict.fromkeys(PIPELINES, 1)
        self._port = 0
        self._counters: dict[str, float] = {}  # of the last look

    def last_words(self) -> str:
        """Return the end of what the daemon said."""
        return (self._board.here / "log").read_text(encoding="utf-8")[-4000:]

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self._board.process.pid if self._board.process else 0

    def start(self, repository: str) -> None:
        """Start the daemon and wait until both pipelines answer.

        Raises:
            TimeoutError: They do not; with the daemon's words.
        """
        here = self._board.here
        text = SETTINGS.format(
            here=here,
            model=self._board.subject.name,
            samples=self._board.subject.samples,
            repository=repository,
            deadline_ms=DEADLINE_S * 1000,
        )
        (here / "agent.toml").write_text(text, encoding="utf-8")
        self._assign()
        self._board.start()
        self._board.until_ready(0.05)
        words = (here / "log").read_text(encoding="utf-8")
        _, _, rest = words.partition("listening on ")
        self._port = urlsplit(rest.split()[0]).port or 0

    # --- looking

    def look(self, at_s: float) -> Look:
        """Scrape and ask, as a scraper and a person would."""
        began = time.perf_counter()
        text = self._scrape()
        scrape_ms = (time.perf_counter() - began) * 1e3
        before, counters = self._counters, parse_counters(text)
        self._counters = counters
        state = self._board.state()
        pipelines = state["pipelines"]
        usage = {"daemon": _usage(self.pid)}
        restarts: dict[str, int] = {}
        received = ended = failed = flying = numbered = 0
        for name, pipeline in pipelines.items():
            usage[name] = _usage(pipeline["worker"]["pid"])
            flying += pipeline["in_flight"]
            numbered += pipeline["next_seq"] - 1
            for reason, count in pipeline["restarts"].items():
                restarts[reason] = restarts.get(reason, 0) + count
            for row in (model["samples"] for model in pipeline["models"]):
                received += row["in"]
                ended += row["ok"] + row["failed"] + row["dropped"]
                failed += row["failed"]
        return Look(
            at_s=at_s,
            scrape_ms=scrape_ms,
            usage={role: it for role, it in usage.items() if it is not None},
            received=received,
            ended=ended,
            failed=failed,
            lost=received - ended - flying,
            numbered=numbered,
            restarts=restarts,
            versions={
                name: row["active"]["version"]
                for name, row in pipelines.items()
                if row["active"] and row["state"] == "active"
            },
            answered=answered(before, counters),
            fallen=len(fallen(before, counters)),
        )

    def settled(self) -> bool:
        """Whether every pipeline answers and no update is under way."""
        state = self._board.state()
        return bool(state["ready"]) and state["update"]["phase"] == "IDLE"

    def lives(self) -> bool:
        """Whether the daemon runs."""
        process = self._board.process
        return process is not None and process.poll() is None

    def worker(self) -> int:
        """Return the process id of the worker that is hit; 0 while it is not ready."""
        try:
            pipeline = self._board.state()["pipelines"][FULL]
        except (OSError, ValueError):  # no answer, or none that is whole
            return 0
        return int(pipeline["worker"]["pid"]) if pipeline["ready"] else 0

    def _scrape(self) -> str:
        """Return ``/metrics``, over TCP."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    # --- what the owner does

    def publish(self, pipeline: str) -> int:
        """Publish the next version for a pipeline; return its number."""
        version = max(self._versions.values()) + 1
        self._versions[pipeline] = version
        # Two kinds in turn: one is fetched in a piece, one in several.
        padding = 200_000 if version % 2 else 0
        subject = self._board.subject
        content = subject.renumbered(version, self._rules, padding)
        self._board.repository.add(content, model=subject.name, version=version)
        if version - LISTED > 1:  # the group's first order still names version 1
            self._board.repository.remove(subject.name, version - LISTED)
        self._assign()
        return version

    def _assign(self) -> None:
        """Publish which version each pipeline is to run."""
        model = self._board.subject.name
        wanted = {name: (model, version) for name, version in self._versions.items()}
        self._board.repository.assign("all", wanted)
        self._board.repository.publish(time.time())  # noqa: TID251 - as its owner does

    # --- what happens to it

    def hit_worker(self, number: signal.Signals) -> int:
        """Send a signal to the worker of ``full``; return its id, 0 for none."""
        pid = self.worker()
        if pid:  # 0 would be everybody
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def reload(self) -> None:
        """Ask the daemon to read its settings again, as ``systemctl reload`` does."""
        os.kill(self.pid, signal.SIGHUP)

    def hide_repository(self) -> None:
        """Take the repository away."""
        (self._board.here / "repo").rename(self._board.here / "gone")

    def bring_repository(self) -> None:
        """Put the repository back."""
        (self._board.here / "gone").rename(self._board.here / "repo")

    @contextlib.contextmanager
    def slow_scrapers(self, count: int) -> Iterator[None]:
        """Hold connections of scrapers that do not read, or never end asking."""
        with contextlib.ExitStack() as held:
            for number in range(count):
                stream = held.enter_context(
                    socket.create_connection(("127.0.0.1", self._port), timeout=5)
                )
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                end = b"\r\n" if number % 2 else b""
                stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: board\r\n" + end)
            yield


@contextlib.contextmanager
def soak_board(rules: TrialRules) -> Iterator[SoakBoard]:
    """Make a board that answers, behind nginx where it is installed."""
    with contextlib.ExitStack() as stack:
        board = stack.enter_context(real_board(subject(MODEL)))
        repository = str(board.here / "repo")
        if shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin"):
            board.here.chmod(0o755)
            repository = stack.enter_context(served(board.here / "repo"))
        soaked = SoakBoard(board, rules)
        soaked.start(repository)
        yield soaked


def _usage(pid: int) -> Usage | None:
    """Return what a process has (proc_pid_statm(5)); None once it is gone."""
    here = Path(f"/proc/{pid}")
    try:
        pages = int((here / "statm").read_text(encoding="ascii").split()[1])
        descriptors = len(list((here / "fd").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not pages:  # dead, and not yet buried
        return None
    return Usage(pid, pages * os.sysconf("SC_PAGE_SIZE"), descriptors)
