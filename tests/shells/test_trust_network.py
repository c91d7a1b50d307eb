"""A board that follows a repository over the network, and everybody on the way there.

The numbers are those of the attack list (ota.md, section 4); what a directory can do as
well is tested in ``test_trust``.
"""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.trust.client import TrustedRepository
from agent.trust.transport import Transport
from tests.conftest import missing
from tests.fakes import toxic_server as toxic
from tests.fakes.board import Board
from tests.fakes.bundle_factory import DAY_S, NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.certificates import Authority
from tests.fakes.kept_bytes import KeptBytes
from tests.fakes.static_server import StaticServer, find_nginx
from tests.fakes.toxic_server import Answer, ToxicServer

TIMESTAMP = "metadata/timestamp.json"
QUICK = Transport(window_s=1.0, connect_s=5.0, pause_s=0.001)
PORTAL = b"<!doctype html><title>Hotel</title>"


@pytest.fixture
def repository(tmp_path: Path) -> SpoiledRepository:
    """Give a published repository."""
    return make_repository(
        tmp_path / "repo",
        {("kws", 1): good_bundle(1)},
        {"all": {"door": ("kws", 1)}},
    )


@pytest.fixture
def server(repository: SpoiledRepository) -> Iterator[ToxicServer]:
    """Give a server of it that is honest until it is told otherwise."""
    with ToxicServer(repository.path) as running:
        yield running


@pytest.fixture
def board(tmp_path: Path, repository: SpoiledRepository, server: ToxicServer) -> Board:
    """Give a board that reaches it by the network alone."""
    home = tmp_path / "board"
    return Board(home, repository, address=server.url, transport=QUICK)


def publish(repository: SpoiledRepository, version: int, now: float = NOW) -> None:
    """Publish and assign a version."""
    repository.repository.add(good_bundle(version), model="kws", version=version)
    repository.repository.assign("all", {"door": ("kws", version)})
    repository.repository.publish(now)


def refused(call: Callable[[], object]) -> str:
    """Return the reason why a call is refused."""
    with pytest.raises(BundleRefusedError) as caught:
        call()
    return caught.value.reason


def test_a_board_follows_nginx_over_tls(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """The real server, the real client: metadata, desired state, bundle."""
    if find_nginx() is None:
        missing("the program nginx")
    authority = Authority(tmp_path)
    home = tmp_path / "nginx"
    with StaticServer(home, repository.path, authority.issue()) as server:
        transport = Transport(ca=authority.file)
        board = Board(
            tmp_path / "b", repository, address=server.url, transport=transport
        )
        trusted = board.refresh()
        assert trusted.desired(["all"])[0][1].pipelines["door"].version == 1
        assert board.fetch(trusted.find("kws", 1)) == good_bundle(1)
        assert trusted.revoked().bundles == ()
        asked = len(server.log)
        # Of a file that has just been written nginx's ETag proves nothing.
        os.utime(repository.file("timestamp"), (NOW, NOW))
        assert [trusted.refresh(NOW + n) for n in range(3)] == [False] * 3
        assert [line.split(" ")[2] for line in server.log[asked:]] == [
            *("200", "304", "304")
        ]
        publish(repository, 2)
        assert trusted.refresh(NOW + 4)
        assert trusted.find("kws", 2).fields.version == 2
        # One connection served all of it.
        assert len({line.rsplit(" ", 1)[1] for line in server.log}) == 1


@pytest.mark.parametrize(
    ("path", "answer", "reason"),
    [
        (TIMESTAMP, toxic.status("200 OK", b" " * 17_000), Reason.TOO_LARGE),
        ("metadata/2.root.json", toxic.status("200 OK", b" " * 600_000), "too_large"),
        ("metadata/2.snapshot.json", toxic.status("200 OK", b" " * 2**21), "too_large"),
        (TIMESTAMP, toxic.drip(skip=30), Reason.TOO_SLOW),
        (TIMESTAMP, toxic.stall, Reason.TOO_SLOW),
        (TIMESTAMP, toxic.cut(0.5), Reason.UNREACHABLE),
        (TIMESTAMP, toxic.cut(0.5, toxic.Exchange.reset), Reason.UNREACHABLE),
        (
            TIMESTAMP,
            toxic.status("200 OK", PORTAL, Content_Type="text/html"),
            Reason.UNREACHABLE,
        ),
        (TIMESTAMP, toxic.status("200 OK", PORTAL), Reason.METADATA),
        (TIMESTAMP, toxic.status("302 Found", Location="http://portal/"), "redirect"),
        (
            TIMESTAMP,
            toxic.status("200 OK", b"x", Content_Encoding="gzip"),
            "unreachable",
        ),
        (TIMESTAMP, toxic.status("404 Not Found"), Reason.METADATA),
        (TIMESTAMP, toxic.status("403 Forbidden"), Reason.METADATA),
        (TIMESTAMP, toxic.status("410 Gone"), Reason.METADATA),
        (TIMESTAMP, toxic.status("500 Oh"), Reason.UNREACHABLE),
        (TIMESTAMP, toxic.status("304 Not Modified"), Reason.UNREACHABLE),
        (TIMESTAMP, toxic.rest(0), Reason.UNREACHABLE),
        ("metadata/2.root.json", toxic.status("503 Later"), Reason.UNREACHABLE),
        ("metadata/2.root.json", toxic.status("200 OK", PORTAL), Reason.METADATA),
        ("metadata/2.snapshot.json", toxic.status("404 Not Found"), Reason.METADATA),
    ],
    ids=[
        *("05-endless-timestamp", "05-endless-root", "05-endless-snapshot"),
        *("45-dripped", "46-stall", "46-half", "46-reset", "49-portal"),
        *("49-portal-without-a-type", "43-redirect", "47-gzip", "48-404", "48-403"),
        *("48-410", "48-500", "48-304-unasked", "47-206-unasked", "48-503-root"),
        *("49-portal-root", "48-404-snapshot"),
    ],
)
def test_metadata_that_does_not_arrive_has_its_reason(
    board: Board, server: ToxicServer, path: str, answer: Answer, reason: str
) -> None:
    """Whatever a server does instead, the refresh ends, and the next one succeeds."""
    server.script(path, answer)
    assert reason == board.refusal()
    server.scripts.clear()
    assert board.refresh().find("kws", 1).fields.version == 1


def test_48_403_and_404_end_the_chain_of_roots(
    board: Board, server: ToxicServer
) -> None:
    """An object store says 403 for what is not there."""
    server.script("metadata/2.root.json", toxic.status("403 Forbidden"))
    assert board.refresh().find("kws", 1).fields.version == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("120", 120.0),
        (formatdate(NOW + 60, usegmt=True), 60.0),
        (formatdate(NOW - 60, usegmt=True), 0.0),
        ("999999999999999999999", 86_400.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("", 0.0),
    ],
)
@pytest.mark.parametrize("line", ["429 Slow Down", "503 Later"])
def test_48_a_server_may_ask_to_be_left_alone(
    board: Board, server: ToxicServer, said: str, expected: float, line: str
) -> None:
    """Retry-After, in seconds or as a date, until the server answers again."""
    trusted = board.boot()
    server.script(TIMESTAMP, toxic.status(line, Retry_After=said), toxic.honest)
    assert refused(lambda: trusted.refresh(NOW)) == Reason.UNREACHABLE
    assert trusted.retry_after == expected
    trusted.refresh(NOW)
    assert trusted.retry_after == 0.0


def redirect(to: str, line: str = "302 Found") -> Answer:
    """Send the client somewhere else."""
    return toxic.status(line, Location=to)


def test_43_redirects_stay_with_the_server(board: Board, server: ToxicServer) -> None:
    """A few steps on the same host are followed; to another host, not one."""
    moved = redirect("/metadata/timestamp.json?moved", "301 Moved")
    server.script(TIMESTAMP, redirect("/a"), toxic.honest)
    server.script("/a", redirect("b"))
    server.script("/b", redirect(server.url + "/" + TIMESTAMP, "308 Moved"))
    assert board.refresh().find("kws", 1).fields.version == 1
    server.script(TIMESTAMP, moved)
    server.script("/metadata/timestamp.json?moved", redirect("/a"))
    assert board.refusal() == Reason.REDIRECT


@pytest.mark.parametrize(
    "to",
    [
        "http://localhost:1/x",
        "https://127.0.0.1/x",
        "//example.org/x",
        "file:///etc/passwd",
        "http://[::1/x",
        "",
    ],
)
def test_43_a_redirect_to_somebody_else_is_refused(
    board: Board, server: ToxicServer, to: str
) -> None:
    """Another host, port or scheme was not chosen by the operator."""
    server.script(TIMESTAMP, redirect(to))
    assert board.refusal() == Reason.REDIRECT


def test_43_tls_is_never_left_by_a_redirect(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """From https to http of the same host: refused."""
    authority = Authority(tmp_path)
    with ToxicServer(repository.path, authority.issue()) as server:
        transport = Transport(ca=authority.file)
        home = tmp_path / "board"
        board = Board(home, repository, address=server.url, transport=transport)
        assert board.refresh().find("kws", 1).fields.version == 1
        plain = server.url.replace("https:", "http:")
        server.script(TIMESTAMP, redirect(f"{plain}/{TIMESTAMP}"))
        assert board.refusal() == Reason.REDIRECT


def test_46_a_kept_connection_that_was_closed_is_opened_again(
    board: Board, server: ToxicServer
) -> None:
    """Servers close idle connections without a word; the next look is not lost."""
    trusted = board.refresh()

    def answer_and_close(exchange: toxic.Exchange) -> None:
        toxic.honest(exchange)
        exchange.close()

    server.script(TIMESTAMP, answer_and_close, toxic.cut(0.0), toxic.honest)
    for second in range(4):
        assert trusted.refresh(NOW + second) is False


def test_03_a_bundle_that_does_not_end_is_left_at_its_signed_length(
    board: Board, server: ToxicServer
) -> None:
    """Not one byte more than was signed is written."""
    target = board.refresh().find("kws", 1)

    def endless(exchange: toxic.Exchange) -> None:
        exchange.head("200 OK", Transfer_Encoding="chunked")
        while not exchange.closed.is_set():
            exchange.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")

    path = f"targets/models/kws/{target.sha256}.1.bundle"
    server.script(path, endless)
    kept = KeptBytes()
    fetch = board.trusted.fetch
    reason = refused(lambda: fetch(target, kept.write, 2**20, kept))
    assert (reason, len(kept.content) <= target.length) == (Reason.LENGTH, True)


def test_04_a_truncated_bundle_is_never_whole(
    board: Board, server: ToxicServer
) -> None:
    """A server that has only half of the file says so by its length."""
    target = board.refresh().find("kws", 1)
    path = f"targets/models/kws/{target.sha256}.1.bundle"
    server.script(path, toxic.status("200 OK", good_bundle(1)[:100]))
    assert refused(lambda: board.fetch(target)) == Reason.LENGTH


def test_a_bundle_is_resumed_over_calls_and_restarts(
    board: Board, server: ToxicServer
) -> None:
    """What a client fetched before it died, the next one does not fetch again."""
    target = board.refresh().find("kws", 1)
    path = f"targets/models/kws/{target.sha256}.1.bundle"
    server.script(path, toxic.cut(0.5, toxic.stall), toxic.honest)
    kept = KeptBytes()
    fetch = board.trusted.fetch
    assert refused(lambda: fetch(target, kept.write, 2**20, kept)) == Reason.TOO_SLOW
    later = board.refresh()
    assert later.fetch(target, kept.write, 2**20, kept) == target.length // 2
    assert bytes(kept.content) == good_bundle(1)


def test_10_a_board_catches_up_with_any_number_of_roots(
    board: Board, repository: SpoiledRepository
) -> None:
    """Three hundred rotations while it was off: 256 in one refresh, the rest in the
    next; and afterwards it still follows.
    """
    board.refresh()
    metadata, signers = repository.load("root"), repository.signers("root")
    for _ in range(299):
        metadata.signed.version += 1
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        name = f"metadata/{metadata.signed.version}.root.json"
        (repository.path / name).write_bytes(metadata.to_bytes())
    repository.repository.rotate("timestamp", NOW)
    assert board.refusal() == Reason.SIGNATURE  # of a key that root 257 did not know
    assert board.refresh().find("kws", 1).fields.version == 1
    repository.repository.rotate("timestamp", NOW)
    publish(repository, 2)
    assert board.refresh().find("kws", 2).fields.version == 2


def test_14_rollback_after_cache_lost(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """A mirror of yesterday, and a cache that a power cut emptied: still refused."""
    old = repository.copy(tmp_path / "old")
    publish(repository, 2)
    board.refresh()
    board.lose_cache()
    repository.restore(old)
    assert board.refusal() == Reason.REPLAYED


def test_17b_a_fast_forward_ends_with_the_stolen_key(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """Version 2^31 of a stolen key holds until the key is replaced, and no longer."""
    honest = repository.copy(tmp_path / "honest")
    repository.resign("timestamp", lambda t: setattr(t, "version", 2**31))
    board.refresh()
    repository.restore(honest)
    publish(repository, 2)
    assert board.refusal() == Reason.REPLAYED
    repository.repository.rotate("timestamp", NOW)
    assert board.refresh().find("kws", 2).fields.version == 2


def test_19_a_freeze_is_expired_and_not_unchanged(
    board: Board, server: ToxicServer
) -> None:
    """A server that says "nothing new" for ever is found out when it expires."""
    trusted = board.refresh()
    server.script(TIMESTAMP, toxic.honest)
    assert trusted.refresh(NOW + 6 * DAY_S - 1) is True  # a day has passed: all of it
    assert trusted.refresh(NOW + 6 * DAY_S) is False
    frozen = toxic.status("304 Not Modified")
    server.script(TIMESTAMP, frozen)
    assert trusted.refresh(NOW + 6 * DAY_S + 1) is False
    server.script(TIMESTAMP, toxic.honest)
    soon = min(trusted.expiries().values()) + 1
    assert soon - (NOW + 6 * DAY_S) > 0
    assert refused(lambda: trusted.refresh(soon)) == Reason.EXPIRED


def test_20_a_clock_in_1970_does_not_revive_an_expired_repository(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """The floor knows better than the clock, also where the cache is lost."""
    old = repository.copy(tmp_path / "old")
    repository.repository.publish(NOW + 30 * DAY_S)
    assert board.refresh(now=0.0).clock_floor == NOW + 30 * DAY_S
    board.lose_cache()
    repository.restore(old)
    assert board.refusal(now=0.0) == Reason.EXPIRED


@pytest.mark.parametrize("now", [2_145_916_800.0, 4_300_000_000.0])
def test_21_a_clock_that_jumps_ahead_stops_updates_only_meanwhile(
    board: Board, now: float
) -> None:
    """In 2038 and 2106 everything is expired; back in the present, nothing is lost."""
    trusted = board.refresh()
    assert refused(lambda: trusted.refresh(now)) == Reason.EXPIRED
    assert trusted.find("kws", 1).fields.version == 1
    trusted.refresh(NOW + 1)
    assert trusted.clock_floor == NOW


def test_22_a_clock_that_steps_back_between_two_looks_revives_nothing(
    board: Board, repository: SpoiledRepository
) -> None:
    """A step back leads to a full refresh, judged by the floor."""
    trusted = board.refresh()
    assert trusted.refresh(NOW - 10) is True
    assert trusted.refresh(NOW - 5) is False
    repository.resign("timestamp", lambda t: setattr(t, "version", t.version + 1))
    repository.expire("timestamp", NOW - 1)
    assert refused(lambda: trusted.refresh(0.0)) == Reason.EXPIRED


def test_23b_an_issue_time_in_2099_ends_with_the_stolen_key(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """A forged future expires everything until the key is replaced."""
    honest = repository.copy(tmp_path / "honest")
    forged = {"x-issued": "2099-01-01T00:00:00Z"}
    repository.resign("timestamp", lambda t: t.unrecognized_fields.update(forged))
    board.refresh()
    repository.restore(honest)
    repository.repository.publish(NOW)
    assert board.refusal() == Reason.EXPIRED
    repository.repository.rotate("timestamp", NOW)
    assert board.refresh().clock_floor == NOW


def test_23b_a_poisoned_clock_floor_keeps_no_board_from_the_cure(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """Certificates live 90 days: a stolen timestamp key must not outlive them all."""
    if find_nginx() is None:
        missing("the program nginx")
    authority = Authority(tmp_path)
    begins, ends = (datetime.fromtimestamp(NOW + at * DAY_S, UTC) for at in (-1, 89))
    board = Board(tmp_path / "b", repository)
    honest = repository.copy(tmp_path / "honest")
    forged = {"x-issued": "2099-01-01T00:00:00Z"}
    repository.resign("timestamp", lambda t: t.unrecognized_fields.update(forged))
    board.refresh()  # by another way, so that no real clock has a say
    assert board.trusted.clock_floor > ends.timestamp()
    repository.restore(honest)
    repository.repository.publish(NOW)
    repository.repository.rotate("timestamp", NOW)
    pair = authority.issue(starts=begins, ends=ends)
    with StaticServer(tmp_path / "nginx", repository.path, pair) as server:
        board.address, board.transport = server.url, Transport(ca=authority.file)
        assert board.refresh().clock_floor == NOW
    assert board.trusted.certificate_floor == NOW


@pytest.mark.parametrize(("lasts_days", "refused"), [(-2, True), (2, False)])
def test_20_a_clock_in_1970_judges_by_the_newest_root(
    tmp_path: Path,
    repository: SpoiledRepository,
    lasts_days: int,
    refused: bool,  # noqa: FBT001 - a case
) -> None:
    """What ended before the offline keys signed last has ended for every clock."""
    if find_nginx() is None:
        missing("the program nginx")
    authority = Authority(tmp_path)
    begins, ends = (
        datetime.fromtimestamp(NOW + at * DAY_S, UTC) for at in (-9, lasts_days)
    )
    board = Board(tmp_path / "b", repository)
    board.refresh()
    pair = authority.issue(starts=begins, ends=ends)
    with StaticServer(tmp_path / "nginx", repository.path, pair) as server:
        board.address, board.transport = server.url, Transport(ca=authority.file)
        if refused:
            assert board.refusal(0.0) == Reason.TLS
        else:
            board.refresh(0.0)


def test_23_an_edited_issue_time_is_unsigned(
    board: Board, repository: SpoiledRepository
) -> None:
    """x-issued lies within the signature."""
    later = {"x-issued": "2030-01-01T00:00:00Z"}
    repository.edit_unsigned("timestamp", lambda signed: signed.update(later))
    assert board.refusal() == Reason.SIGNATURE


def test_31_stolen_online_keys_add_no_bundle(
    board: Board, repository: SpoiledRepository
) -> None:
    """With timestamp and snapshot one may hide news, but not sign any."""
    board.refresh()
    publish(repository, 2)
    repository.resign("snapshot", lambda s: s.meta.pop("fleet.json"))
    assert board.refusal() == Reason.METADATA
    assert board.trusted.find("kws", 1).fields.version == 1


def test_32_one_of_two_release_keys_signs_nothing(tmp_path: Path) -> None:
    """Whoever stole one key of two stays below the threshold."""
    from agent.publish.repository import KeyPlan

    made = make_repository(
        tmp_path / "two",
        {("kws", 1): good_bundle(1)},
        plan=KeyPlan(targets_keys=2, targets_threshold=2),
    )
    made.drop_signatures("targets", 1)
    with ToxicServer(made.path) as other:
        board = Board(tmp_path / "b2", made, address=other.url, transport=QUICK)
        assert board.refusal() == Reason.THRESHOLD


def test_33_what_a_revoked_key_signed_is_not_replayed(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """After a rotation the old key's timestamp is nobody's, cache or no cache."""
    old = repository.copy(tmp_path / "old") / TIMESTAMP
    repository.repository.rotate("timestamp", NOW)
    board.refresh()
    repository.file("timestamp").write_bytes(old.read_bytes())
    for _ in range(2):
        assert board.refusal() == Reason.SIGNATURE
        board.lose_cache()


def test_45_a_refresh_is_bounded_file_by_file(
    board: Board, server: ToxicServer
) -> None:
    """A server that stalls on every file costs one window, not one for each."""
    for path in (TIMESTAMP, "metadata/2.root.json", "metadata/2.snapshot.json"):
        server.script(path, toxic.stall)
    began = time.monotonic()
    assert board.refusal() == Reason.TOO_SLOW
    assert time.monotonic() - began < toxic.LONG_S / 2


def test_nothing_new_costs_one_request(board: Board, server: ToxicServer) -> None:
    """A look at an unchanged repository asks for timestamp.json, conditionally."""
    trusted: TrustedRepository = board.refresh()
    asked = len(server.asked)
    assert trusted.refresh(NOW + 300) is False
    ((path, headers),) = server.asked[asked:]
    assert path == "/" + TIMESTAMP
    assert "if-none-match" in headers
    assert server.connections == 1


def test_news_cost_no_request_twice(
    board: Board, server: ToxicServer, repository: SpoiledRepository
) -> None:
    """What the look brought is the timestamp; a desired state that is kept stays."""
    trusted = board.refresh()
    wanted = trusted.desired(["all"])
    asked = len(server.asked)
    repository.repository.publish(NOW + 100)
    assert trusted.refresh(NOW + 300) is True
    assert trusted.issued == NOW + 100
    assert trusted.desired(["all"]) == wanted
    paths = server.paths()[asked:]
    assert paths[:2] == ["/" + TIMESTAMP, "/metadata/2.root.json"]
    assert len(set(paths)) == len(paths)
    assert [it for it in paths if it.startswith("/targets/")] == []
    # Its ETag is known: the next look is conditional.
    assert trusted.refresh(NOW + 600) is False
    assert "if-none-match" in server.asked[-1][1]
    publish(repository, 2)
    trusted.refresh(NOW + 900)
    assert trusted.desired(["all"])[0][1].pipelines["door"].version == 2


def test_a_timestamp_from_before_a_new_root_is_asked_for_again(
    board: Board, server: ToxicServer, repository: SpoiledRepository
) -> None:
    """Its keys may have been exchanged in between: that is no attack."""
    trusted = board.refresh()
    publish(repository, 2, NOW + 1)
    between = repository.file("timestamp").read_bytes()
    repository.repository.rotate("timestamp", NOW + 2)
    asked = len(server.asked)
    # The look comes before the exchange, the refresh behind it.
    after = repository.file("timestamp").read_bytes()
    answers = [toxic.status("200 OK", content) for content in (between, after)]
    server.script(TIMESTAMP, *answers)
    assert trusted.refresh(NOW + 300) is True
    assert server.paths()[asked:].count("/" + TIMESTAMP) == 2
    assert trusted.find("kws", 2).fields.version == 2


def test_a_server_without_etags_is_compared_by_bytes(
    board: Board, server: ToxicServer, repository: SpoiledRepository
) -> None:
    """Without an ETag the whole file comes, and is seen to be the same."""
    content = repository.file("timestamp").read_bytes()
    server.script(TIMESTAMP, toxic.status("200 OK", content))
    trusted = board.refresh()
    asked = len(server.asked)
    assert trusted.refresh(NOW + 300) is False
    assert server.paths()[asked:] == ["/" + TIMESTAMP]


def test_a_tag_of_refused_bytes_is_not_taken_for_ours(
    board: Board, repository: SpoiledRepository
) -> None:
    """A spoiled timestamp is refused at each look: 304 must not make it "unchanged"."""
    trusted = board.refresh()
    repository.sign_by_stranger("timestamp")
    for second in range(3):
        reason = refused(lambda at=second: trusted.refresh(NOW + at))  # type: ignore[misc]  # bound late otherwise
        assert reason == Reason.SIGNATURE
