"""Control listener: who is let in, who may do what, and what the API answers."""

import asyncio
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.core.updates import Progress, SetAside
from agent.endpoint.control import ControlEndpoint
from agent.endpoint.services import Services
from agent.errors import DeviceError
from agent.settings import ControlSettings
from tests.fakes.control_bench import Bench, Peer, Reply, bench, listening, request, run
from tests.fakes.fleet_ca import (
    BOARD,
    DAY_S,
    ROLE,
    SERVER,
    FleetCA,
    Leaf,
    Wish,
    client_context,
)
from tests.fakes.operations import REPORT
from tests.fakes.snapshots import FixedFacts

NOW_S = 1_800_000_000.0  # 2027: later than any clock this runs on for a while
DIGEST = "ab" * 32
DESIRED = {"generation": 3, "pipelines": {"door": {"model": "kws", "version": 2}}}
READING = ["/v1/state", "/v1/desired", "/v1/updates", "/v1/identity"]
ORDERS = [
    "PUT /v1/desired",
    "POST /v1/updates",
    "POST /v1/rollback",
    "POST /v1/commission",
    f"PUT /v1/uploads/{DIGEST}?path=metadata/1.root.json",
    "DELETE /v1/uploads",
    f"DELETE /v1/quarantine/{DIGEST}",
    "PUT /v1/identity/certificate",
    "DELETE /v1/desired",
]


async def is_shut_out(
    made: Bench, leaf: Leaf | None, context: ssl.SSLContext | None = None
) -> bool:
    """Say whether TLS ends before a request is answered.

    With TLS 1.3 a client learns only after its own handshake that it was refused.
    """
    try:
        peer = await made.peer(leaf, context)
        await peer.send(request("GET /v1/openapi.json"))
        answer = await peer.reader.read()
    except (ssl.SSLError, ConnectionError):
        return True
    peer.close()
    return answer == b""


def test_42_no_client_certificate(tmp_path: Path) -> None:
    """Without a certificate there is no handshake."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            assert await is_shut_out(made, None)
            assert (await made.ask(made.observer, "GET /v1/state")).status == 200

    run(story)


@pytest.mark.parametrize("name", ["stranger", "fleet"])
def test_42_certificate_of_another_ca(name: str, tmp_path: Path) -> None:
    """Another CA is shut out, also one that gave itself the same name."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            other = FleetCA(tmp_path / "other", name, key="another")
            assert await is_shut_out(made, other.role("operator"))
            assert (await made.ask(made.observer, "GET /v1/state")).status == 200

    run(story)


@pytest.mark.parametrize(
    "wish",
    [
        Wish(ends=DAY_S),
        Wish(begins=3.9e9),
        Wish(usage=(SERVER,)),
    ],
    ids=["expired", "not yet", "for servers only"],
)
def test_42_certificate_that_is_not_valid(wish: Wish, tmp_path: Path) -> None:
    """Expired, not valid yet, or meant for something else: no handshake."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            assert await is_shut_out(made, made.ca.issue(wish, "odd"))
            assert (await made.ask(made.observer, "GET /v1/state")).status == 200

    run(story)


@pytest.mark.parametrize(
    "uris",
    [
        (f"{BOARD}board-2",),
        (),
        (f"{ROLE}root",),
        (f"{ROLE}observer", f"{ROLE}operator"),
        (f"{ROLE}Operator",),
    ],
    ids=["another board's", "no role", "unknown role", "two roles", "other spelling"],
)
def test_42_certificate_without_a_role(uris: tuple[str, ...], tmp_path: Path) -> None:
    """The right CA is not enough: whoever has no role may nothing."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            leaf = made.ca.issue(Wish("eve", uris), "eve")
            for path in ("/metrics", "/v1/state", "/v1/openapi.json"):
                reply = await made.ask(leaf, f"GET {path}")
                assert (reply.status, reply.json["reason"]) == (403, Reason.ROLE)

    run(story)


def test_43_older_tls_is_refused(tmp_path: Path) -> None:
    """TLS 1.2 with the right certificate is shut out."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            old = client_context(made.ca, made.operator)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            assert await is_shut_out(made, None, old)
            now = client_context(made.ca, made.operator)
            peer = await made.peer(None, now)
            tls = peer.writer.get_extra_info("ssl_object")
            assert tls.version() == "TLSv1.3"
            peer.close()

    run(story)


def test_43_plain_http_is_refused(tmp_path: Path) -> None:
    """Who speaks plain HTTP to the TLS port gets no HTTP answer."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.silent()
            await peer.send(request("GET /metrics"))
            assert b"HTTP" not in await peer.ended()
            peer.close()

    run(story)


def test_roles_read_what_they_may(tmp_path: Path) -> None:
    """Scrapers get metrics only, observers everything that can be read."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            made.desk.pushed = None
            for path in READING:
                refused = await made.ask(made.scraper, f"GET {path}")
                assert (refused.status, refused.json["reason"]) == (403, Reason.ROLE)
                shown = await made.ask(made.observer, f"GET {path}")
                assert shown.status == (404 if path == "/v1/desired" else 200)
            for leaf in (made.scraper, made.observer, made.operator):
                for path in ("/metrics", "/v1/openapi.json"):
                    assert (await made.ask(leaf, f"GET {path}")).status == 200

    run(story)


@pytest.mark.parametrize("order", ORDERS)
def test_only_operators_give_orders(order: str, tmp_path: Path) -> None:
    """An observer's order is refused before its body is read; nothing happens."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            for leaf in (made.scraper, made.observer):
                reply = await made.ask(leaf, order, b"x" * 2_000_000)
                assert (reply.status, reply.json["reason"]) == (403, Reason.ROLE)
            assert (made.desk.asked, made.inbox.partial) == ([], {})

    run(story)


def test_a_desired_state_is_taken(tmp_path: Path) -> None:
    """It can be read back; an older one and a stranger's are refused with a reason."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            taken = await made.put_json(made.operator, "PUT /v1/desired", DESIRED)
            assert (taken.status, taken.json) == (200, {"generation": 3})
            shown = await made.ask(made.observer, "GET /v1/desired")
            assert shown.json["pipelines"] == DESIRED["pipelines"]
            older = {**DESIRED, "generation": 2}
            replayed = await made.put_json(made.operator, "PUT /v1/desired", older)
            assert (replayed.status, replayed.json["reason"]) == (409, "replayed")
            made.desk.orchestrator = "tuf"
            other = await made.put_json(made.operator, "PUT /v1/desired", DESIRED)
            assert (other.status, other.json["reason"]) == (409, "not_orchestrator")
            assert made.desk.asked == [("desired", "operator")]

    run(story)


def test_a_desired_state_is_forgotten(tmp_path: Path) -> None:
    """After a generation that was pushed too high, a lower one is taken again."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            high = {**DESIRED, "generation": 2**31 - 1}
            assert (
                await made.put_json(made.operator, "PUT /v1/desired", high)
            ).status == 200
            for _ in range(2):  # asked twice, it is done all the same
                gone = await made.ask(made.operator, "DELETE /v1/desired")
                assert (gone.status, gone.body) == (204, b"")
            assert (await made.ask(made.observer, "GET /v1/desired")).status == 404
            taken = await made.put_json(made.operator, "PUT /v1/desired", DESIRED)
            assert (taken.status, taken.json) == (200, {"generation": 3})

    run(story)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[1]",
        b'{"generation": 0, "pipelines": {}}',
        b'{"generation": 1, "pipelines": {}, "s3cret-word": 1}',
        b"\xff\xfe",
        b"[" * 60_000,
    ],
    ids=["empty", "cut", "list", "zero", "unknown key", "no utf-8", "deep"],
)
def test_a_body_that_makes_no_sense(raw: bytes, tmp_path: Path) -> None:
    """400 with a reason and what to do; nothing of the body stands in the answer."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            headers = {"Content-Type": "application/json"}
            reply = await made.ask(made.operator, "PUT /v1/desired", raw, headers)
            assert (reply.status, reply.json["reason"]) == (400, Reason.REQUEST)
            assert reply.headers["Content-Type"] == "application/problem+json"
            assert reply.json["todo"]
            assert b"s3cret-word" not in reply.body
            assert made.desk.asked == []

    run(story)


def test_a_form_of_another_site_orders_nothing(tmp_path: Path) -> None:
    """A browser with a certificate cannot be made to roll back: no JSON, no order."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            headers = {"Content-Type": "text/plain", "Origin": "https://evil.example"}
            reply = await made.ask(made.operator, "POST /v1/rollback", b"{}", headers)
            assert (reply.status, made.desk.asked) == (403, [])
            asked = await made.ask(made.operator, "OPTIONS /v1/rollback")
            assert asked.status == 405

    run(story)


def test_51_the_doorbell_rings_as_often_as_it_likes(tmp_path: Path) -> None:
    """A repeated doorbell is answered the same, and takes no address from anybody."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            for _ in range(3):
                reply = await made.ask(made.operator, "POST /v1/updates")
                assert (reply.status, reply.json) == (202, {"phase": "PREFLIGHT"})
            url = b'{"url": "https://evil.example/bundle"}'
            headers = {"Content-Type": "application/json"}
            reply = await made.ask(made.operator, "POST /v1/updates", url, headers)
            assert reply.status == 202
            assert made.desk.asked == [("look", "operator")] * 4

    run(story)


def test_51_a_flood_of_doorbells_is_slowed_down(tmp_path: Path) -> None:
    """One certificate's flood ends in 429 with Retry-After; others are answered."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.peer(made.operator)
            replies: list[Reply] = []
            while not replies or replies[-1].status == 202:
                await peer.send(request("POST /v1/updates"))
                replies.append(await peer.reply())
                assert len(replies) < 5_000
            last = replies[-1]
            assert (last.status, last.json["reason"]) == (429, "rate_limited")
            assert last.headers["Retry-After"] == "1"
            assert (await made.ask(made.observer, "GET /v1/state")).status == 200
            peer.close()

    run(story)


def test_two_operators_at_once(tmp_path: Path) -> None:
    """The second one is told that an update is under way, and in which phase."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            made.desk.phase = "IDLE"
            second = made.ca.role("operator", "second")
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(made.put_json(leaf, "POST /v1/rollback", {}))
                    for leaf in (made.operator, second)
                ]
            taken, refused = sorted(
                (task.result() for task in asked), key=lambda reply: reply.status
            )
            assert (taken.status, taken.json) == (202, {"pipeline": "door"})
            assert (refused.status, refused.json["reason"]) == (409, Reason.BUSY)
            assert "ROLLING_BACK" in refused.json["detail"]
            assert refused.json["phase"] == "PREFLIGHT"  # as /v1/state says it
            assert len(made.desk.asked) == 1

    run(story)


@pytest.mark.parametrize(
    ("pipeline", "status", "reason"),
    [("gate", 404, Reason.UNKNOWN_PIPELINE), ("door", 409, Reason.NO_PREVIOUS)],
)
def test_a_rollback_that_cannot_be(
    pipeline: str, status: int, reason: str, tmp_path: Path
) -> None:
    """An unknown pipeline, or none to go back to: the reason says which."""

    async def story() -> None:
        made = bench(tmp_path)
        made.desk.has_previous = False
        async with listening(made):
            order = {"pipeline": pipeline}
            reply = await made.put_json(made.operator, "POST /v1/rollback", order)
            assert (reply.status, reply.json["reason"]) == (status, reason)

    run(story)


def test_a_baseline_begins_anew(tmp_path: Path) -> None:
    """Of the only pipeline, or the one that is named."""

    async def story() -> None:
        made = bench(tmp_path)
        async with listening(made):
            for order in ({}, {"pipeline": "door"}):
                reply = await made.put_json(made.operator, "POST /v1/commission", order)
                assert (reply.status, reply.json) == (200, {"pipeline": "door"})
        assert [what for what, _ in made.desk.asked] == ["commission door"] * 2

    run(story)


@pytest.mark.parametrize(
    ("pipeline", "status", "reason"),
    [("gate", 404, Reason.UNKNOWN_PIPELINE), ("door", 409, Reason.UNWATCHED)],
)
def test_a_baseline_that_cannot_begin(
    pipeline: str, status: int, reason: str, tmp_path: Path
) -> None:
    """An unknown pipeline, or one that nobody watches: the reason says which."""

    async def story() -> None:
        made = bench(tmp_path)
        made.desk.watched = False
        async with listening(made):
            order = {"pipeline": pipeline}
            reply = await made.put_json(made.operator, "POST /v1/commission", order)
            assert (reply.status, reply.json["reason"]) == (status, reason)

    run(story)


def test_updates_are_shown(tmp_path: Path) -> None:
    """The one under way, those that ended, and what is not tried again."""
    made = bench(tmp_path)
    progress = Progress(8, "door", "kws", 3, DIGEST, "FETCHING", 10, 100)
    update = replace(made.facts.shown.update, progress=progress)
    made.facts.shown = replace(made.facts.shown, update=update)
    made.desk.aside = [SetAside(DIGEST, "crash", 5.0)]

    async def story() -> None:
        async with listening(made):
            log = (await made.ask(made.observer, "GET /v1/updates")).json
            assert log["progress"]["done_bytes"] == 10
            assert [report["id"] for report in log["reports"]] == [REPORT.id]
            assert log["quarantine"][0]["reason"] == "crash"
            now = (await made.ask(made.observer, "GET /v1/updates/8")).json
            assert (now["progress"]["phase"], now["report"]) == ("FETCHING", None)
            then = (await made.ask(made.observer, "GET /v1/updates/7")).json
            assert (then["progress"], then["report"]["result"]) == (None, "committed")
            for number in ("9", "x", "-1", "1" * 40):
                lost = await made.ask(made.observer, f"GET /v1/updates/{number}")
                assert lost.status == 404

    run(story)


def test_a_bundle_is_forgiven(tmp_path: Path) -> None:
    """It may be tried again; forgiving it twice is a mistake that is named."""
    made = bench(tmp_path)
    made.desk.aside = [SetAside(DIGEST, "crash", 5.0)]

    async def story() -> None:
        async with listening(made):
            path = f"DELETE /v1/quarantine/{DIGEST}"
            done = await made.ask(made.operator, path)
            assert (done.status, done.body, made.desk.aside) == (204, b"", [])
            assert (await made.ask(made.operator, path)).status == 404

    run(story)


def test_the_identity_is_shown_and_replaced(tmp_path: Path) -> None:
    """A CSR goes out, a certificate comes in; what is none is refused."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            shown = (await made.ask(made.observer, "GET /v1/identity")).json
            assert shown["request"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
            path = "PUT /v1/identity/certificate"
            refused = await made.ask(made.operator, path, b"no PEM")
            assert (refused.status, refused.json["reason"]) == (403, "certificate")
            taken = await made.ask(made.operator, path, made.operator.pem)
            assert taken.json["certificate"]["serial"] == "2"

    run(story)


def test_revoked_operators_are_refused_at_every_request(tmp_path: Path) -> None:
    """By serial, also on a connection that is open already; others are let in."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.peer(made.operator)
            await peer.send(request("GET /v1/state"))
            assert (await peer.reply()).status == 200
            made.revoked.append("0" + made.operator.serial)
            await peer.send(request("POST /v1/updates"))
            refused = await peer.reply()
            assert (refused.status, refused.json["reason"]) == (403, "certificate")
            assert (await made.ask(made.observer, "GET /v1/state")).status == 200
            assert made.desk.asked == []
            peer.close()

    run(story)


def test_22_a_clock_in_1970_locks_nobody_out(tmp_path: Path) -> None:
    """The floor is ahead of the clock: certificates are judged by the floor."""

    async def story() -> None:
        made = bench(tmp_path, clock=lambda: NOW_S)
        async with listening(made):
            fresh = made.ca.issue(Wish(begins=NOW_S - DAY_S), "fresh")
            # By the system's clock it is not valid yet: OpenSSL alone would refuse it.
            assert (await made.ask(fresh, "GET /v1/state")).status == 200
            late = made.ca.issue(Wish(ends=NOW_S - DAY_S), "late")
            reply = await made.ask(late, "GET /v1/state")
            assert (reply.status, reply.json["reason"]) == (403, "certificate")
            assert await is_shut_out(made, None)
            stranger = FleetCA(tmp_path, "stranger").role("operator")
            assert await is_shut_out(made, stranger)

    run(story)


def test_22_a_ca_that_has_ended_by_the_floor(tmp_path: Path) -> None:
    """A CA's own end counts as well where OpenSSL leaves time out."""

    async def story() -> None:
        made = bench(tmp_path, clock=lambda: NOW_S)
        old = FleetCA(tmp_path, "old", ends=NOW_S - DAY_S)
        made.give(made.ca.board("board-1"), old)
        async with listening(made):
            context = client_context(made.ca, old.role("operator"))
            peer = await made.peer(None, context)
            await peer.send(request("GET /v1/state"))
            reply = await peer.reply()
            assert (reply.status, reply.json["reason"]) == (403, "certificate")
            peer.close()

    run(story)


def test_22_an_intermediate_ca_that_has_ended_by_the_floor(tmp_path: Path) -> None:
    """The whole chain is judged, not only its two ends."""

    async def story() -> None:
        made = bench(tmp_path, clock=lambda: NOW_S)
        async with listening(made):
            for name, ends, status in (("old", NOW_S - 1, 403), ("new", 4e9, 200)):
                between = FleetCA(tmp_path, name, ends=ends, parent=made.ca)
                reply = await made.ask(between.role("operator"), "GET /v1/state")
                assert reply.status == status

    run(story)


def test_20_a_certificate_younger_than_the_floor(tmp_path: Path) -> None:
    """A board that lost its clock lets in who got a certificate since."""

    async def story() -> None:
        made = bench(tmp_path, clock=lambda: NOW_S)
        async with listening(made):
            young = made.ca.issue(Wish(begins=NOW_S + DAY_S), "young")
            assert (await made.ask(young, "GET /v1/state")).status == 200

    run(story)


def test_23b_a_poisoned_clock_floor_locks_no_operator_out(tmp_path: Path) -> None:
    """Online keys may say that the clock is wrong; they end no certificate."""

    async def story() -> None:
        real, later = time.time(), time.time() + 117 * DAY_S  # noqa: TID251 - OpenSSL's
        made = bench(tmp_path, clock=lambda: real, earliest=lambda: later)
        async with listening(made):
            leaf = made.ca.issue(Wish(ends=real + 30 * DAY_S), "ada")
            assert (await made.ask(leaf, "GET /v1/state")).status == 200
            young = made.ca.issue(Wish(begins=real + DAY_S), "young")
            assert (await made.ask(young, "GET /v1/state")).status == 200
            late = made.ca.issue(Wish(ends=real - DAY_S), "late")
            assert (await made.ask(late, "GET /v1/state")).status == 403

    run(story)


def test_a_ca_that_was_taken_away_takes_its_connections_along(tmp_path: Path) -> None:
    """Not only new ones: who had stolen its key is out when the file says so."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            asking = await made.peer(made.operator)
            silent = await made.peer(made.observer)
            for peer in (asking, silent):
                await peer.send(request("GET /v1/state"))
                assert (await peer.reply()).status == 200
            others = FleetCA(tmp_path, "others")
            (made.folder / "clients.pem").write_bytes(others.pem)
            await asking.send(request("POST /v1/updates"))
            assert await asking.ended() == b""
            assert await silent.ended() == b""
            assert (made.desk.asked, len(made.endpoint.visits)) == ([], 0)

    run(story)


def test_a_ca_that_was_added_ends_nothing(tmp_path: Path) -> None:
    """Rotation: the old CA and the new one side by side."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.peer(made.operator)
            others = FleetCA(tmp_path, "others")
            (made.folder / "clients.pem").write_bytes(others.pem + made.ca.pem)
            await peer.send(request("GET /v1/state"))
            assert (await peer.reply()).status == 200
            peer.close()

    run(story)


def served_serial(peer: Peer) -> str:
    """Return the serial number of the certificate that the board showed."""
    tls = peer.writer.get_extra_info("ssl_object")
    return str(tls.getpeercert()["serialNumber"]).lower().lstrip("0")


def test_certificates_are_replaced_without_a_restart(tmp_path: Path) -> None:
    """A new certificate, and a new client CA, serve the next connection."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            before = await made.peer(made.operator)
            renewed = made.ca.board("board-1", "renewed")
            made.give(renewed, made.ca)
            after = await made.peer(made.operator)
            assert served_serial(after) == renewed.serial != served_serial(before)
            await before.send(request("GET /v1/state"))
            assert (await before.reply()).status == 200
            operators = FleetCA(tmp_path, "operators")
            made.give(renewed, operators)
            assert await is_shut_out(made, made.operator)
            context = client_context(made.ca, operators.role("operator"))
            peer = await made.peer(None, context)
            await peer.send(request("GET /v1/state"))
            assert (await peer.reply()).status == 200
            for each in (before, after, peer):
                each.close()

    run(story)


def test_broken_files_keep_the_old_ones_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a replacement is reported once, and changes nothing until it is whole."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            (made.folder / "board.pem").write_bytes(b"half a certific")
            for _ in range(3):
                assert (await made.ask(made.observer, "GET /v1/state")).status == 200
            said = [r for r in caplog.records if r.message == "control.certificate"]
            assert len(said) == 1
            renewed = made.ca.board("board-1", "renewed")
            made.give(renewed, made.ca)
            peer = await made.peer(made.operator)
            assert served_serial(peer) == renewed.serial
            peer.close()

    run(story)


def test_a_board_without_its_certificate_waits_for_it(tmp_path: Path) -> None:
    """It listens, lets nobody in, and serves once the files are there."""

    async def story() -> None:
        made = bench(tmp_path)
        certificate = (made.folder / "board.pem").read_bytes()
        (made.folder / "board.pem").unlink()
        async with listening(made):
            assert await is_shut_out(made, made.operator)
            (made.folder / "board.pem").write_bytes(certificate)
            assert (await made.ask(made.operator, "GET /v1/state")).status == 200

    run(story)


def test_a_missing_part_is_said(tmp_path: Path) -> None:
    """Where the settings do without orders, uploads or identity, 404 says so."""

    async def story() -> None:
        made = bench(tmp_path, services=Services())
        async with listening(made):
            for asked in ("POST /v1/updates", "GET /v1/identity", *ORDERS[4:6]):
                reply = await made.ask(made.operator, asked)
                assert (reply.status, reply.json["reason"]) == (404, Reason.REQUEST)
            assert (await made.ask(made.operator, "GET /v1/state")).status == 200

    run(story)


def test_errors_repeat_nothing_of_the_request(tmp_path: Path) -> None:
    """Paths, queries and headers of a peer never come back to it."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            lost = await made.ask(made.operator, "GET /v1/s3cret?x=s3cret")
            odd = {"Expect": "s3cret"}
            strange = await made.ask(made.operator, "PUT /v1/desired", b"", odd)
            assert (lost.status, strange.status) == (404, 417)
            for reply in (lost, strange):
                assert b"s3cret" not in reply.body
                assert reply.headers["Content-Type"] == "application/problem+json"

    run(story)


def test_a_bug_is_an_answer_without_a_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """500 with ``internal``; the trace is in the log and the connection goes on."""

    class Broken(FixedFacts):
        def metrics(self, accept: str) -> tuple[str, bytes]:
            raise ZeroDivisionError(accept)

    async def story() -> None:
        async with listening(bench(tmp_path, facts=Broken())) as made:
            peer = await made.peer(made.operator)
            await peer.send(request("GET /metrics"))
            reply = await peer.reply()
            assert (reply.status, reply.json["reason"]) == (500, Reason.INTERNAL)
            assert b"ZeroDivision" not in reply.body
            await peer.send(request("GET /v1/state"))
            assert (await peer.reply()).status == 200
            peer.close()

    run(story)
    assert "ZeroDivisionError" in caplog.text


def test_orders_are_logged_with_who_gave_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Name, serial, what, and how it ended; reading leaves no line."""
    caplog.set_level("INFO")

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            await made.ask(made.operator, "GET /v1/state")
            await made.ask(made.operator, "POST /v1/updates")
            await made.ask(made.observer, "DELETE /v1/uploads")
            rows = [r.__dict__ for r in caplog.records if r.message == "control.order"]
            said = [(r["operator"], r["serial"], r["order"], r["reason"]) for r in rows]
            assert said == [
                ("operator", made.operator.serial, "POST /v1/updates", ""),
                ("observer", made.observer.serial, "DELETE /v1/uploads", "role"),
            ]

    run(story)


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    """The operator of the board reads which address, and what to do."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            listen = f"127.0.0.1:{made.port}"
            settings = replace_listen(made, listen)
            second = ControlEndpoint(made.facts, Services(), settings, made.clock)
            with pytest.raises(DeviceError, match=listen) as caught:
                await second.run()
        assert caught.value.reason == Reason.ADDRESS

    run(story)


def test_an_address_that_comes_later_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before DHCP a board has no such address: models go on, and then it listens."""

    async def story() -> None:
        made = bench(tmp_path)
        # TEST-NET-1 of RFC 5737: nobody has it.
        settings = replace_listen(made, "192.0.2.1:0")
        endpoint = ControlEndpoint(made.facts, Services(), settings, made.clock)
        endpoint.address_s = 0.01
        said: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            await endpoint.open()
            assert endpoint.bound() is None
            task = group.create_task(
                endpoint.run(lambda _, port: said.set_result(port))
            )
            await asyncio.sleep(0.1)
            assert not said.done()
            endpoint._listen = "127.0.0.1:0"  # DHCP has come
            bound = endpoint.bound() if await said else None
            assert bound == ("127.0.0.1", said.result())
            task.cancel()
        told = [r for r in caplog.records if r.message == "control.no_address"]
        assert len(told) == 1

    run(story)


def replace_listen(made: Bench, listen: str) -> ControlSettings:
    """Return the bench's settings with another address."""
    kept = made.settings
    return ControlSettings(listen, kept.certificate, kept.key, kept.client_ca)
