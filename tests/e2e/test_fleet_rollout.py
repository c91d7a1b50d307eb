"""Rollouts to real daemons over their control listeners, told by us and by TUF."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result

from agent.publish.repository import init_repository
from tests.e2e.conftest import FULL_LOAD, POLL_S, Table, watched_daemon
from tests.fakes.bundle_factory import SpoiledRepository
from tests.fakes.daemon_process import NAME, DaemonProcess, Json, wait_until
from tests.fakes.fleet import MODEL, Fleet
from tests.fakes.fleet_ca import FleetCA
from tests.fakes.packed_candidates import on_trial, rendered
from tests.fakes.rollout_fleet import PAPERS, RolloutFleet
from tests.fakes.watched_board import tinyward

SECRET = b"correct horse"
NAMES = ("pi-1", "pi-2", "pi-3")
# Three boards share two cores with the tests: they answer, but not for a living.
CALM = {**FULL_LOAD, "rate": 50.0}


@dataclass
class Boards:
    """Three daemons, the first of which is the canary, and their operator.

    Attributes:
        owner: Whose bundles they run.
        version: The version that was published last.
    """

    owner: Fleet
    daemons: dict[str, DaemonProcess]
    operator: RolloutFleet
    version: int = 0

    def add(self, content: bytes | None = None) -> int:
        """Publish the next version without assigning it to anybody."""
        self.version += 1
        repository = self.owner.spoiled.repository
        made = content or rendered(self.version)
        repository.add(made, model=MODEL, version=self.version)
        self.owner.sign()
        return self.version

    def rollout(self, version: int, *more: str) -> Result:
        """Roll a version out, to its end."""
        words = self.operator.words("rollout", "--assign", f"{NAME}={version}")
        return tinyward(*words, "--repository", str(self.owner.path), *more)

    def versions(self) -> list[int]:
        """Return what they run."""
        return [daemon.version() for daemon in self.daemons.values()]

    def reports(self, name: str) -> list[Json]:
        """Return a board's updates."""
        found: list[Json] = self.daemons[name].ask("/v1/updates")["reports"]
        return found


class SealedFleet(Fleet):
    """An owner whose keys need a passphrase, as those of every real one."""

    def __init__(self, home: Path) -> None:
        self.path, self.root = home / "repo", home / "root.json"
        now = time.time()  # noqa: TID251 - real daemons read it too
        made = init_repository(self.path, None, SECRET, now=now)
        self.spoiled = SpoiledRepository(self.path, made)
        self.root.write_bytes(self.spoiled.root)


def boards(home: Path, orchestrator: str, opened: ExitStack) -> Boards:
    """Start three boards, or two that follow a repository."""
    owner = SealedFleet(home) if orchestrator == "tuf" else Fleet(home)
    authority = FleetCA(home, "ca")
    operator = authority.role("operator")
    assert operator.certificate.name == PAPERS["cert"]
    daemons: dict[str, DaemonProcess] = {}
    names = NAMES if orchestrator == "push" else NAMES[:2]
    for name in names:
        leaf = authority.board(name)
        control = {
            "listen": "127.0.0.1:0",
            "certificate": leaf.certificate,
            "key": leaf.key,
            "client_ca": authority.certificate,
        }
        update = {**owner.update_table(POLL_S), "orchestrator": orchestrator}
        if orchestrator == "push":
            update["repository"] = ""
        if name == NAMES[0]:
            update["groups"] = ["canary", "all"]
        tables: dict[str, Table] = {"control": control, "board": {"id": name}}
        daemons[name] = watched_daemon(home / name, update, tables, source=CALM)
    for daemon in daemons.values():
        daemon.spawn()
        opened.callback(daemon.kill)
    addresses = {name: _address(daemon) for name, daemon in daemons.items()}
    groups = {"canary": NAMES[:1]}
    waves = ("group:canary", "all")
    # Delays of a model of 60 us are those of whatever else runs here.
    gate: Json = {"soak_s": 0.5, "deadline_s": 120, "latency_ratio": 1000}
    rollouts = RolloutFleet(home, {}, addresses, gate, groups, waves)
    return Boards(owner, daemons, rollouts)


def _address(daemon: DaemonProcess) -> str:
    """Return where a control listener is."""
    before = "listening on https://"
    daemon.wait_said(before)
    _, _, rest = daemon.words().partition(before)
    return rest.split()[0]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boards]:
    """Give three boards that take pushes, and have no repository."""
    with ExitStack() as opened:
        yield boards(tmp_path_factory.mktemp("pushed"), "push", opened)


def test_a_good_version_reaches_all(pushed: Boards) -> None:
    """The first model of boards that had none: the canary first, then the others."""
    version = pushed.add()
    result = pushed.rollout(version, "--json")
    assert result.exit_code == 0, result.output
    assert pushed.versions() == [version] * 3
    report = json.loads(result.stdout)
    waves = {name: it["wave"] for name, it in report["boards"].items()}
    assert waves == {"pi-1": 0, "pi-2": 1, "pi-3": 1}
    first = {name: it["settled_at"] for name, it in report["boards"].items()}
    told = {name: it["told_at"] for name, it in report["boards"].items()}
    assert first["pi-1"] < min(told["pi-2"], told["pi-3"])


def test_a_bad_version_stops_at_the_canary(pushed: Boards) -> None:
    """Its golden samples do not fit; the other boards were never told of it."""
    before = pushed.versions()
    mark = [len(pushed.reports(name)) for name in NAMES]
    version = pushed.add(rendered(pushed.version + 1, golden_of=pushed.version))
    result = pushed.rollout(version, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["reason"]) == (1, "gate")
    assert report["boards"]["pi-1"]["reason"] == "golden"
    assert pushed.versions() == before
    assert [len(pushed.reports(n)) - c for n, c in zip(NAMES, mark, strict=True)] == [
        1,
        0,
        0,
    ]
    for name in NAMES[1:]:
        decision = pushed.daemons[name].state()["update"]["decisions"][0]
        assert decision["desired"]["version"] == before[0]
    assert tinyward(*pushed.operator.words("abort")).exit_code == 0


def test_a_laptop_that_dies_and_an_abort_that_takes_back(pushed: Boards) -> None:
    """Killed while the second wave is on trial, resumed, done; then taken back."""
    before = pushed.versions()
    version = pushed.add(on_trial(pushed.version + 1, probation_s=2.0))
    words = ("--repository", str(pushed.owner.path))
    pushed.operator.title = f"{NAME}={version}"
    process = pushed.operator.spawn(*words)
    last = pushed.daemons["pi-3"]
    wait_until(
        lambda: last.state()["update"]["phase"] != "IDLE", "the last board is told"
    )
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    result = pushed.rollout(version, "--json")
    assert result.exit_code == 0, result.output
    assert pushed.versions() == [version] * 3
    report = json.loads(result.stdout)
    assert {it["told"] for it in report["boards"].values()} == {1}
    results = [pushed.reports(name)[0]["result"] for name in NAMES]
    assert results == ["committed"] * 3
    aborted = tinyward(*pushed.operator.words("abort", "--back"))
    assert (aborted.exit_code, "3 boards rolled back" in aborted.stdout) == (0, True)
    assert pushed.versions() == before


def test_waves_by_percent_of_a_signed_file(tmp_path: Path) -> None:
    """Boards follow the repository; the canary its own file, the others a percent."""
    with ExitStack() as opened:
        made = boards(tmp_path, "tuf", opened)
        secret = tmp_path / "passphrase"
        first = made.add()
        secret.write_bytes(SECRET)
        publish = (*("--by-percent", "group:all", "--passphrase-file", str(secret)),)
        result = made.rollout(first, "--json", *publish)
        assert result.exit_code == 0, result.output
        assert made.versions() == [first] * 2
        bad = made.add(rendered(made.version + 1, golden_of=made.version))
        result = made.rollout(bad, "--json", *publish)
        report = json.loads(result.stdout)
        assert (result.exit_code, report["reason"]) == (1, "gate")
        assert report["boards"]["pi-1"]["reason"] == "golden"
        groups = made.owner.spoiled.repository.status().groups
        assert groups["canary"].paused
        assert groups["all"].pipelines[NAME].version == first
        assert made.versions() == [first] * 2
