"""A DDI server, a memory and a machine in memory: all that the client touches.

The rules this module keeps:
 * The server is a table of answers that a test writes; each request is kept.
 * The machine does nothing by itself: a test says what is under way, what came of it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent.core.ddi import Record
from agent.core.ddi_actions import desired
from agent.core.fleet_settings import DdiSettings
from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.core.updates import Decision, Progress, Report, State
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.ddi_client import DdiClient
from agent.update.ddi_needs import Answer, Facts

SERVER = "https://hawkbit.example"
BASE = f"{SERVER}/default/controller/v1/pi-1"
NOW = 1_800_000_000.0


@dataclass
class MemoryWire:
    """A server: a table of answers, and what was asked.

    Attributes:
        pages: (method, path below the base or whole address) -> status and body.
        said: Method, path and body of each request that changed something.
        asked: Method and path of all requests.
        headers: Of the last request.
        down: What becomes of each request, where the network is the matter.
        deaf: No feedback is taken; ``lost``: what becomes of it on its way.
    """

    pages: dict[tuple[str, str], Answer] = field(default_factory=dict)
    said: list[tuple[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    down: AgentError | None = None
    deaf: bool = False
    lost: AgentError | None = None
    closed: bool = False

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = 65_536,
    ) -> Answer:
        """Answer as the table says; 404 what is not in it."""
        path = url.removeprefix(BASE).partition("?")[0]
        self.asked.append(f"{method} {path}")
        self.headers = dict(headers or {})
        failed = self.down or (self.lost if path.endswith("/feedback") else None)
        if failed is not None:
            raise failed
        answer = self.pages.get((method, path))
        if self.deaf and path.endswith("/feedback"):
            answer = Answer(500, {}, b"")
        if answer is None:
            answer = Answer(200 if method != "GET" else 404, {}, b"")
        if body is not None and answer.status < 300:
            self.said.append((path, json.loads(body)))
        if len(answer.body) > max_bytes:
            raise BundleRefusedError("too much", reason=Reason.TOO_LARGE)
        return answer

    async def close(self) -> None:
        """Be closed."""
        self.closed = True

    def put(
        self,
        path: str,
        said: object,
        *,
        method: str = "GET",
        status: int = 200,
        **headers: str,
    ) -> None:
        """Answer a request with JSON, or with bytes as they are."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        names = {name.replace("_", "-"): it for name, it in headers.items()}
        self.pages[method, path] = Answer(status, names, body)

    def offer(
        self, *relations: str, sleep: object = "00:01:00", etag: str = ""
    ) -> None:
        """Poll answers: links to these, each ``relation/id`` or ``relation``."""
        links = {
            it.partition("/")[0]: {"href": f"{BASE}/{it}?c=-1"} for it in relations
        }
        said = {"config": {"polling": {"sleep": sleep}}, "_links": links}
        self.put("", said, etag=etag)

    def deploy(self, action: str = "5", *targets: str, **changes: Any) -> None:  # noqa: ANN401 - fields of what it makes
        """Offer a deployment of these targets."""
        resource = changes.pop("resource", "deploymentBase")
        chunks = [
            {"name": "kws", "metadata": [{"key": "tuf.target", "value": it}]}
            for it in targets or ("models/kws/7.bundle",)
        ]
        body = {"download": "forced", "update": "forced", "chunks": chunks, **changes}
        name = "confirmation" if resource == "confirmationBase" else "deployment"
        self.put(f"/{resource}/{action}", {"id": action, name: body})
        self.offer(f"{resource}/{action}")

    def cancel(self, cancel: str = "9", stops: str = "5") -> None:
        """Offer a cancellation."""
        said = {"id": cancel, "cancelAction": {"stopId": stops}}
        self.put(f"/cancelAction/{cancel}", said)
        self.offer(f"cancelAction/{cancel}")

    def told(self) -> list[str]:
        """Return what was told: resource, id, and what of it."""
        words = []
        for path, said in self.said:
            if not path.endswith("/feedback"):
                continue
            status = said.get("status", {"execution": said.get("confirmation")})
            finished = status.get("result", {}).get("finished", "none")
            what = status["execution"] + (f"/{finished}" if finished != "none" else "")
            words.append(f"{path.removesuffix('/feedback').strip('/')} {what}")
        return words


class MemoryKept:
    """A memory that keeps bytes, as a disk does.

    Attributes:
        raw: What was saved last; ``saves`` how often.
        full: It takes nothing more.
    """

    def __init__(self) -> None:
        self.raw = msgspec.json.encode(Record())
        self.saves = 0
        self.full = False

    def load(self) -> Record:
        """Return what was saved."""
        return msgspec.json.decode(self.raw, type=Record)

    def save(self, record: Record) -> None:
        """Keep a record."""
        if self.full:
            raise DeviceError("no room", reason=Reason.DISK_FULL)
        self.raw = msgspec.json.encode(record)
        self.saves += 1


class Machine:
    """The machine's side, driven by a test.

    Attributes:
        kept: Where the client saves: what is wanted is read there.
        looks: What was wanted at each look.
        state: What the plan says, and ``reason``; empty: what is under way.
        phase: Of the update under way, or empty.
        withdrawn: Generations that were withdrawn; ``committed`` what it was too late
            for.
        inadmissible: Why what is to be confirmed is not.
    """

    def __init__(self, kept: MemoryKept) -> None:
        self.kept = kept
        self.models = {"door": "kws", "window": "vww"}
        self.looks: list[dict[str, Wanted]] = []
        self.state: State = "ordered"
        self.reason = ""
        self.phase = ""
        self.fetched: frozenset[str] = frozenset()
        self.heat = ""
        self.reports: list[Report] = []
        self.withdrawn: list[int] = []
        self.inadmissible: AgentError | None = None
        self.attributes = {"hardware": "pi", "model.door": "none"}

    def wanted(self) -> dict[str, Wanted]:
        """Return what the saved record wants, and may start."""
        file = desired(self.kept.load())
        return {} if file is None or file.paused else dict(file.pipelines)

    def facts(self) -> Facts:
        """Return what the test says of what is wanted."""
        file = desired(self.kept.load())
        pipelines = dict(file.pipelines) if file else {}
        generation = file.generation if file else 0
        decisions = [
            Decision(name, self.state, it, "ddi", generation, self.reason, "words")
            for name, it in pipelines.items()
        ]
        progress = None
        if self.phase and pipelines:
            name, it = next(iter(pipelines.items()))
            progress = Progress(1, name, it.model, it.version, "ab", self.phase)
        return Facts(
            self.models,
            decisions,
            progress,
            tuple(self.reports),
            self.fetched,
            self.heat,
        )

    def look(self) -> None:
        """Write down what is wanted."""
        self.looks.append(self.wanted())

    async def withdraw(self, generation: int) -> bool:
        """End it; what was committed stays."""
        self.withdrawn.append(generation)
        self.phase = ""
        return not any(it.generation == generation for it in self.reports)

    async def admissible(self, wanted: Wanted) -> None:
        """Say no, where the test does."""
        del wanted
        if self.inadmissible is not None:
            raise self.inadmissible

    def identify(self) -> Mapping[str, str]:
        """Return the attributes."""
        return self.attributes

    def commit(self, pipeline: str = "door") -> None:
        """Commit what is wanted in a pipeline."""
        record = self.kept.load()
        assert record.open is not None
        it = record.open.pipelines[pipeline]
        generation = record.open.generation
        self.reports.append(
            Report(
                1, pipeline, it.model, it.version, "ab", "ddi", generation, "committed"
            )
        )
        self.phase = ""


class ClientBench:
    """A client among fakes.

    Attributes:
        now: Unix seconds, as the client sees them.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - fields of what it makes
        self.settings = DdiSettings(url=SERVER, controller="pi-1", **settings)
        self.wire, self.kept = MemoryWire(), MemoryKept()
        self.machine = Machine(self.kept)
        self.now = NOW
        self.draw = 0.5
        self.wire.offer()
        self.client = self.start()

    def start(self) -> DdiClient:
        """Return a new client on the same memory, as after a restart."""
        self.client = DdiClient(
            self.settings,
            "board",
            self.wire,
            self.kept,
            self.machine,
            lambda: self.now,
            lambda: self.draw,
        )
        return self.client

    @property
    def record(self) -> Record:
        """What was saved."""
        return self.kept.load()

    def trouble(self) -> str:
        """Return the reason of the last round's trouble, or nothing."""
        trouble = self.client.snapshot().trouble
        return trouble[0] if trouble else ""

    @contextmanager
    def answering(self, path: str, status: int, method: str = "POST") -> Iterator[None]:
        """Answer a request with a status for a while."""
        self.wire.put(path, b"", method=method, status=status)
        try:
            yield
        finally:
            del self.wire.pages[method, path]
