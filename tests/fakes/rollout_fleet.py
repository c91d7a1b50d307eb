"""A small fleet for rollouts: scripted boards behind real TLS, and their inventory."""

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from agent.cli import cli
from tests.fakes.board_server import (
    FakeBoard,
    Json,
    Told,
    decision,
    over_tls,
    problem,
    report,
    running,
)
from tests.fakes.daemon_process import toml
from tests.fakes.fleet_ca import FleetCA

QUICK: Json = {"soak_s": 0.05, "deadline_s": 60}
TITLE = "door=kws@8"


def model_row(version: int, ok: int, failed: int = 0, p95_ms: float = 2.0) -> Json:
    """Return what a version counted, as ``/v1/state`` says it."""
    stage = {"count": ok, "p50": p95_ms, "p95": p95_ms, "p99": p95_ms, "mean": p95_ms}
    samples = {"in": ok + failed, "ok": ok, "failed": failed, "dropped": 0}
    return {
        "model": "kws",
        "version": version,
        "samples": {**samples, "reasons": {}},
        "latency_ms": {"total": stage},
    }


class FleetBoard(FakeBoard):
    """A board that takes pushes, and commits or fails what it is told.

    Attributes:
        fails: The reason for which it will not commit; empty if it will.
        held: It stays in its trial until this is set.
        rows: Figures of its models, once it has committed.
        orders: Every desired state that it took.
    """

    def __init__(self, name: str, *, orchestrator: str = "push") -> None:
        super().__init__()
        self.state["board"] = name
        self.state["update"]["orchestrator"] = orchestrator
        self.decide(decision("door", "runs", 7, source="push", generation=0))
        self.state["pipelines"]["door"] |= {"models": [model_row(7, 1000)]}
        self.fails = ""
        self.held = threading.Event()
        self.held.set()
        self.rows: list[Json] = [model_row(7, 1000), model_row(8, 500)]
        self.orders: list[Json] = []
        self.rollbacks = 0

    @property
    def version(self) -> int:
        """The version that answers."""
        return int(self.state["pipelines"]["door"]["active"]["version"])

    @property
    def touched(self) -> bool:
        """Whether anybody asked it to do something."""
        return any(not line.startswith("GET ") for line in self.asked)

    def take_step(self) -> None:
        """Go one step further, unless a trial is held."""
        if self.held.is_set() or len(self.script) > 1:
            super().take_step()

    def _take_order(self, asked: str, body: bytes) -> Told:
        """Take an order, refuse one that is no news, or go back."""
        if asked == "POST /v1/rollback":
            self.rollbacks += 1
            self.rung, self.script = True, [lambda: self._run(7)]
            return Told(202, {"pipeline": "door"})
        if asked != "PUT /v1/desired":
            return super()._take_order(asked, body)
        wanted = json.loads(body)
        last = self.desired["generation"] if self.desired else 0
        if wanted["generation"] < last or (
            wanted["generation"] == last and wanted != self.desired
        ):
            return problem(409, "replayed", f"generation {last} was pushed")
        told = super()._take_order(asked, body)
        if wanted != (self.orders[-1] if self.orders else None):
            self.orders.append(wanted)
            self._begin(int(wanted["pipelines"]["door"]["version"]))
        return told

    def _begin(self, version: int) -> None:
        """Begin a trial of what was ordered."""
        if version == self.version:
            self.script = [lambda: self._run(version)]
        else:
            self.script = [*self.phases("PROBATION"), self._end(version)]

    def _end(self, version: int) -> Callable[[], None]:
        """Return the step that ends a trial."""

        def step() -> None:
            self.look_ended()
            self.updates["progress"] = None
            result = "failed" if self.fails else "committed"
            words = {"reason": self.fails, "detail": "it broke" if self.fails else ""}
            number = 9 + len(self.orders)
            said = report(number, result, version, source="push", **words)
            self.updates["reports"].insert(0, said)
            if self.fails:
                refused = decision("door", "refused", version, reason=self.fails)
                self.decide(refused | {"generation": self.orders[-1]["generation"]})
            else:
                self._run(version)

        return step

    def _run(self, version: int) -> None:
        """Run a version; a trial that was under way is over."""
        self.look_ended()
        self.updates["progress"] = None
        self.state["pipelines"]["door"] = running(version) | {"models": self.rows}
        generation = self.orders[-1]["generation"] if self.orders else 0
        self.decide(decision("door", "runs", version, generation=generation))


@dataclass
class RolloutFleet:
    """Boards, an operator's papers and an inventory.

    Attributes:
        boards: By id.
        gone: Ids whose address nobody listens at.
    """

    home: Path
    boards: dict[str, FleetBoard]
    addresses: dict[str, str]
    gate: Json = field(default_factory=lambda: dict(QUICK))
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    waves: tuple[str, ...] = ("group:canary", "50%", "all")
    at_once: int = 3
    title: str = TITLE

    def __post_init__(self) -> None:
        self.inventory = self.home / "fleet.toml"
        self.state = self.home / "fleet.toml.rollout.json"
        self.write()

    def write(self) -> None:
        """Write the inventory."""
        ca = self.home / "ca"
        lines = ["[papers]"]
        lines += [f'{k} = "{ca.name}/{v}"' for k, v in PAPERS.items()]
        lines += ["[rollout]", f"waves = {toml(self.waves)}"]
        lines += [f"at_once = {self.at_once}", "[rollout.gate]"]
        lines += [f"{key} = {toml(value)}" for key, value in self.gate.items()]
        for name, address in self.addresses.items():
            groups = [group for group, names in self.groups.items() if name in names]
            lines += ["[[board]]", f'id = "{name}"', f'address = "{address}"']
            lines += [f"groups = {toml(groups)}"]
        self.inventory.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def words(self, command: str, *more: str) -> list[str]:
        """Return a command line."""
        return ["fleet", command, "--inventory", str(self.inventory), *more]

    def rollout(self, *more: str, assign: str = TITLE) -> Result:
        """Run ``tinyward fleet rollout`` to its end."""
        return self.run("rollout", "--assign", assign, "--patience", "0.5", *more)

    def run(self, command: str, *more: str) -> Result:
        """Run a command of ``tinyward fleet``."""
        words = self.words(command, *more)
        return CliRunner().invoke(cli, words, env={"COLUMNS": "80"})

    def spawn(self, *more: str) -> "subprocess.Popen[str]":
        """Start a rollout as a process of its own, which can be killed."""
        words = self.words("rollout", "--assign", self.title, *more)
        return subprocess.Popen(
            [sys.executable, "-m", "agent", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kept(self) -> Json:
        """Return what the state file says."""
        found: Json = json.loads(self.state.read_text())["rollout"]
        return found

    def versions(self) -> dict[str, int]:
        """Return what every board runs."""
        return {name: board.version for name, board in self.boards.items()}

    def touched(self) -> list[str]:
        """Return the boards that were asked to do anything."""
        return [name for name, board in self.boards.items() if board.touched]


PAPERS = {"cert": "operator.pem", "key": "operator.key", "ca": "ca.pem"}


@contextmanager
def rollout_fleet(
    home: Path,
    count: int = 6,
    **more: Any,  # noqa: ANN401 - fields of RolloutFleet
) -> Iterator[RolloutFleet]:
    """Give a fleet of boards ``b1``..., the first of which is the canary."""
    fleet_ca = FleetCA(home, "ca")
    fleet_ca.role("operator")
    names = [f"b{number}" for number in range(1, count + 1)]
    boards = {name: FleetBoard(name) for name in names}
    with ExitStack() as opened:
        addresses = {
            name: opened.enter_context(over_tls(board, _server(fleet_ca, name)))
            for name, board in boards.items()
        }
        more.setdefault("groups", {"canary": ("b1",)})
        yield RolloutFleet(home, boards, addresses, **more)


def _server(fleet_ca: FleetCA, name: str) -> ssl.SSLContext:
    """Return the TLS side of a board."""
    leaf = fleet_ca.board(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(leaf.certificate, leaf.key)
    context.load_verify_locations(fleet_ca.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def nobody() -> str:
    """Return an address that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"
