"""The story of the demo: run, improve, attack, sum up.

The rules this module keeps:
 * Every number of the summary was measured in this run; every claim is a comparison of
   such numbers, and the exit code says whether all of them held.
 * *Lost* is checked twice: by the daemon's own sums, and by the sequence numbers of the
   prediction lines, which must have no hole.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.demo.board import DemoBoard, Json
from agent.demo.owner import MODEL, Owner

SWAP_S = 60.0  # preflight on a Pi 3 with a busy core, many times over
REFUSE_S = 30.0
FIRST, SECOND, SPOILT, STRANGE = 1, 2, 3, 4


class View(Protocol):
    """Where the story is told."""

    def step(self, text: str) -> None:
        """Say what is done next."""
        ...

    def done(self, text: str) -> None:
        """Say how it went."""
        ...

    def live(self, state: Json, predictions: Sequence[Json]) -> None:
        """Show the board as it is now."""
        ...


@dataclass(slots=True)
class Summary:
    """What the demo found out; ``render`` has the keys that scripts rely on."""

    samples: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    swap: dict[str, Any] = field(default_factory=dict)
    refused: list[dict[str, str]] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)
    claims: dict[str, bool] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether every claim held."""
        return bool(self.claims) and all(self.claims.values())

    def render(self) -> dict[str, object]:
        """Return the summary as one JSON-able object."""
        return {name: getattr(self, name) for name in self.__slots__}


class Story:
    """Tells the story once.

    Args:
        owner: Who publishes; ``board`` who runs.
        truth: The digit that each sample of the stream shows.
        view: Where it is told.
        seconds: How long the board is watched, over all acts.
    """

    def __init__(
        self,
        owner: Owner,
        board: DemoBoard,
        truth: Sequence[int],
        view: View,
        seconds: float,
    ) -> None:
        self._owner = owner
        self._board = board
        self._truth = truth
        self._view = view
        self._act_s = seconds / 3
        self.summary = Summary()

    def tell(self) -> Summary:
        """Run all acts; return what was found out.

        Raises:
            DeviceError: The daemon ended, or something did not happen in time.
        """
        self._begin()
        self._watch(self._act_s)
        self._improve()
        self._watch(self._act_s)
        self._spoil()
        self._impersonate()
        self._watch(self._act_s)
        self._sum_up()
        return self.summary

    def _begin(self) -> None:
        """Publish version 1, start the daemon, wait for its first answer."""
        self._view.step("Packing and publishing version 1, signed by the owner's keys")
        content = self._owner.bundle(FIRST)
        self._owner.publish(FIRST, content)
        self._view.done(f"a bundle of {len(content) / 1024:.0f} kB, a TUF repository")
        self._view.step("Starting the daemon and its worker on recorded handwriting")
        self._board.start()
        self._await_version(FIRST)
        active = self._board.pipeline()["active"]
        self._view.done(
            f"{MODEL} {FIRST} ({active['variant']}) answers on {active['executor']}; "
            f"see {self._board.address}/"
        )

    def _improve(self) -> None:
        """Publish version 2 and wait until it answers, under load."""
        self._view.step("Publishing version 2; the board fetches, tries and swaps it")
        self._owner.publish(SECOND, self._owner.bundle(SECOND))
        self._await_version(SECOND)
        pipeline = self._board.pipeline()
        gap_ms = pipeline["swap_gap_ms"]
        result = "ok" if pipeline["active"]["version"] == SECOND else "failed"
        self.summary.swap = {
            "from": FIRST,
            "to": SECOND,
            "gap_ms": round(gap_ms, 3),
            "result": result,
        }
        self._view.done(f"version 2 answers; the longest pause was {gap_ms:.2f} ms")

    def _spoil(self) -> None:
        """Offer a signed bundle in which one bit flipped."""
        self._view.step("Offering a bundle with one flipped bit")
        content = self._owner.bundle(SPOILT)
        self._offer("flipped", lambda: self._owner.publish(SPOILT, content, spoil=True))

    def _impersonate(self) -> None:
        """Offer a bundle that a stranger signed with keys of their own."""
        self._view.step("Offering a bundle signed by a stranger")
        content = self._owner.bundle(STRANGE)
        undo: list[Callable[[], None]] = []
        self._offer(
            "stranger",
            lambda: undo.append(self._owner.impersonate(STRANGE, content)),
        )
        undo[0]()

    def _offer(self, what: str, offer: Callable[[], None]) -> None:
        """Make an offer and wait for the refusal that follows it."""
        before = self._refusal()
        offer()
        self._board.wait_for(
            lambda: self._look() and self._is_news(before), REFUSE_S, what
        )
        refusal = self._refusal()
        reason = refusal["reason"] if refusal else ""
        self.summary.refused.append({"what": what, "reason": reason})
        self._view.done(
            f"refused: {reason}; version {self._board.version()} answers on"
        )

    def _is_news(self, before: Json | None) -> bool:
        """Whether an offer was refused; a folder between two renames is no offer."""
        refusal = self._refusal()
        return refusal not in (None, before) and refusal["reason"] != "unreachable"

    def _refusal(self) -> Json | None:
        """Return the last refusal the board reports."""
        refusal: Json | None = self._board.state()["update"]["last_refusal"]
        return refusal

    def _await_version(self, version: int) -> None:
        """Wait until a version answers, showing what happens meanwhile."""
        self._board.wait_for(
            lambda: self._look() and self._board.version() == version,
            SWAP_S,
            f"version {version}",
        )

    def _watch(self, seconds: float) -> None:
        """Show the board for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._look()
            time.sleep(0.1)

    def _look(self) -> bool:
        """Show the board as it is now; always true, to be used in conditions."""
        self._view.live(self._board.state(), self._board.predictions())
        return True

    def _sum_up(self) -> None:
        """Measure everything once more, then judge the claims."""
        state = self._board.state()
        pipeline = state["pipelines"][MODEL]
        summary = self.summary
        totals = {"in": 0, "ok": 0, "failed": 0, "dropped": 0}
        for model in pipeline["models"]:
            for outcome in totals:
                totals[outcome] += model["samples"][outcome]
        totals["in"] -= pipeline["in_flight"]
        ended = totals["ok"] + totals["failed"] + totals["dropped"]
        rows = self._board.predictions()
        totals["lost"] = totals["in"] - ended + holes([row["seq"] for row in rows])
        summary.samples = totals
        total = pipeline["latency_ms"]
        summary.latency_ms = {
            key: round(total[key], 3) for key in ("p50", "p95", "p99")
        }
        summary.accuracy = accuracy(rows, self._truth)
        worker_rss = pipeline["worker"]["rss_bytes"]
        summary.rss_mb = {
            "daemon": round(state["daemon_rss_bytes"] / 1e6, 1),
            "worker": round(worker_rss / 1e6, 1),
        }
        summary.claims = self._judge()

    def _judge(self) -> dict[str, bool]:
        """Compare what was measured with what is claimed."""
        summary = self.summary
        reasons = {row["what"]: row["reason"] for row in summary.refused}
        version = self._board.version()
        shares = summary.accuracy
        return {
            "lost_none": summary.samples["lost"] == 0 and summary.samples["in"] > 0,
            "swapped": summary.swap.get("result") == "ok" and version == SECOND,
            "flipped_refused": reasons.get("flipped") == "digest",
            "stranger_refused": reasons.get("stranger") in ("signature", "threshold"),
            "v2_better": shares.get("2", 0.0) > shares.get("1", 1.0),
        }


def holes(numbers: Sequence[int]) -> int:
    """Return how many numbers are missing between the first and the last.

    >>> holes([1, 2, 5])
    2
    """
    if not numbers:
        return 0
    return numbers[-1] - numbers[0] + 1 - len(set(numbers))


def accuracy(rows: Sequence[Json], truth: Sequence[int]) -> dict[str, float]:
    """Return the share of right answers by version.

    >>> accuracy([{"seq": 1, "version": 1, "label": "7"}], [7])
    {'1': 1.0}
    """
    right: dict[str, list[bool]] = {}
    for row in rows:
        expected = str(truth[(row["seq"] - 1) % len(truth)])
        right.setdefault(str(row["version"]), []).append(row["label"] == expected)
    return {version: round(sum(hits) / len(hits), 4) for version, hits in right.items()}
