"""Laws of the listeners' limits: rates, ranges, places, roles, uploads' paths."""

import asyncio
import re
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.endpoint.bodies import MAX_PIECE_BYTES, Span, parse_json, parse_range
from agent.endpoint.doorstep import MAX_HANDSHAKES, MAX_PER_ADDRESS, Doorstep
from agent.endpoint.peers import (
    LOCAL,
    Access,
    Anchor,
    Peer,
    Role,
    check_access,
    check_revoked,
    check_valid,
    identify,
    is_pinned,
    may,
)
from agent.endpoint.problems import STATUS, describe_problem, status_of
from agent.endpoint.rate import MAX_CLIENTS, Rate
from agent.endpoint.shapes import RollbackOrder
from agent.endpoint.uploads import PATH_PATTERN
from agent.errors import (
    AgentError,
    BundleRefusedError,
    DeviceError,
    IllegalTransitionError,
    RequestRefusedError,
)

SUBJECT = ((("commonName", "ada"),),)
CERTIFICATE: dict[str, object] = {
    "subject": SUBJECT,
    "issuer": ((("commonName", "fleet"),),),
    "serialNumber": "0AB1",
    "notBefore": "Jan  1 00:00:00 2026 GMT",
    "notAfter": "Jan  1 00:00:00 2027 GMT",
    "subjectAltName": (("DNS", "localhost"), ("URI", "urn:tinyward:role:observer")),
}
number = st.integers(min_value=0, max_value=10**15 - 1)


@given(
    st.floats(min_value=0.5, max_value=100),
    st.integers(min_value=1, max_value=50),
    st.lists(st.floats(min_value=0, max_value=2), max_size=200),
)
def test_no_client_gets_more_than_its_rate(
    per_s: float, burst: int, pauses: list[float]
) -> None:
    """In any time, at most the burst and what the rate gives in that time."""
    rate, now, taken = Rate(per_s, burst), 0.0, 0
    for pause in pauses:
        now += pause
        taken += rate.take(b"a", now) == 0
    assert taken <= burst + now * per_s + 1e-6


@given(st.floats(min_value=0.5, max_value=100), st.integers(min_value=1, max_value=20))
def test_who_waits_as_told_is_served(per_s: float, burst: int) -> None:
    """The wait that is named is enough, and refused requests cost nothing."""
    rate = Rate(per_s, burst)
    waits = [rate.take(b"a", 0.0) for _ in range(burst + 3)]
    assert waits[:burst] == [0.0] * burst
    assert rate.take(b"a", waits[-1] + 1e-6) == 0.0


def test_clients_do_not_share_a_bucket() -> None:
    """One that floods takes nothing from another; buckets are bounded."""
    rate = Rate(1.0, 1.0)
    assert (rate.take(b"a", 0.0), rate.take(b"a", 0.0) > 0) == (0.0, True)
    assert rate.take(b"b", 0.0) == 0.0
    for client in range(MAX_CLIENTS * 2):
        rate.take(b"%d" % client, 0.0)
    assert len(rate._buckets) == MAX_CLIENTS


@given(number, number, number)
def test_a_range_is_taken_or_refused(first: int, last: int, total: int) -> None:
    """It lies in its total and in one piece, or it is refused with a reason."""
    header = f"bytes {first}-{last}/{total}"
    size = last - first + 1
    if not first <= last < total:
        with pytest.raises(RequestRefusedError) as caught:
            parse_range(header, None)
        assert caught.value.reason == Reason.REQUEST
    elif size > MAX_PIECE_BYTES:
        with pytest.raises(RequestRefusedError) as caught:
            parse_range(header, size)
        assert caught.value.reason == Reason.TOO_LARGE
    else:
        assert parse_range(header, size) == Span(first, size, total)


@given(st.text(max_size=40))
def test_a_range_of_any_text_is_no_other_error(header: str) -> None:
    """Whatever stands in the header: a span, or our own error."""
    try:
        span = parse_range(header, None)
    except RequestRefusedError:
        return
    assert 0 < span.size <= MAX_PIECE_BYTES


@given(st.binary(max_size=200))
def test_a_body_of_any_bytes_is_no_other_error(raw: bytes) -> None:
    """Whatever stands in a body: an order, or our own error."""
    with suppress(RequestRefusedError):
        assert len(parse_json(raw, RollbackOrder).pipeline) <= 64


@given(st.text(alphabet="s3cret-", min_size=7, max_size=40))
def test_messages_repeat_nothing_of_a_body(word: str) -> None:
    """Neither an unknown key nor a wrong value comes back."""
    raw = f'{{"pipeline": 1, "{word}": 2}}'.encode()
    with pytest.raises(RequestRefusedError) as caught:
        parse_json(raw, RollbackOrder)
    assert word not in str(caught.value)


@given(st.from_regex(PATH_PATTERN, fullmatch=True))
def test_an_upload_path_stays_in_its_slice(path: str) -> None:
    """Nothing that the pattern lets through leaves its folder or hides in it."""
    parts = path.split("/")
    assert parts[0] in {"metadata", "targets", "envelopes"}
    assert 2 <= len(parts) <= 9
    assert all(part and not part.startswith(".") for part in parts)
    assert re.fullmatch(r"[!-~]+", path)
    assert "\\" not in path


def test_addresses_share_the_doorstep() -> None:
    """The newcomer displaces the oldest of the busiest address, never another's."""

    async def story() -> None:
        door = Doorstep()
        async with asyncio.TaskGroup() as group:

            def come(address: str) -> asyncio.Task[None]:
                task = group.create_task(asyncio.sleep(3600))
                door.add(task, address)
                return task

            quiet = come("quiet")
            flood = [come("flood") for _ in range(MAX_PER_ADDRESS * 4)]
            assert len(door) == MAX_PER_ADDRESS + 1
            others = [come(f"other-{n}") for n in range(MAX_HANDSHAKES - 2)]
            await asyncio.sleep(0)
            assert len(door) <= MAX_HANDSHAKES
            ended = [task for task in (quiet, *flood, *others) if task.cancelled()]
            assert flood[0] in ended
            assert {*ended} <= {*flood}
            assert len(ended) == len(flood) - 1
            for task in (quiet, *flood, *others):
                task.cancel()
        await asyncio.sleep(0)
        assert len(door) == 0

    asyncio.run(story())


def test_a_role_is_one_uri() -> None:
    """Exactly one role URI, spelled as it is spelled; everything else is none."""
    peer = identify(CERTIFICATE, b"key")
    assert (peer.name, peer.role, peer.serial) == ("ada", Role.OBSERVER, "ab1")
    role = ("URI", "urn:tinyward:role:operator")
    for names in (
        (),
        (("URI", "urn:tinyward:board:b1"),),
        (("DNS", role[1]),),
        (role, ("URI", "urn:tinyward:role:observer")),
        (("URI", f"{role[1]} "),),
        (("URI", "urn:tinyward:role:"),),
    ):
        assert identify({**CERTIFICATE, "subjectAltName": names}, b"").role is None
    assert (
        identify({**CERTIFICATE, "subjectAltName": (role,)}, b"").role is Role.OPERATOR
    )


def test_a_name_forges_no_log_line() -> None:
    """What a CA let somebody call himself stays on one line, and short."""
    subject = ((("commonName", "a\nb\x1b[31m" + "c" * 100),),)
    name = identify({**CERTIFICATE, "subject": subject}, b"").name
    assert name.isprintable()
    assert len(name) <= 64
    assert identify({**CERTIFICATE, "subject": ()}, b"").name == "ab1"


def test_what_roles_may() -> None:
    """Each role may what the one below it may, and more."""
    allowed = {role: [a for a in Access if may(role, a)] for role in (None, *Role)}
    assert allowed == {
        None: [],
        Role.SCRAPER: [Access.ANY, Access.METRICS],
        Role.OBSERVER: [Access.ANY, Access.METRICS, Access.READ],
        Role.OPERATOR: list(Access),
    }
    check_access(LOCAL, Access.OPERATE)
    with pytest.raises(RequestRefusedError, match="role is none"):
        check_access(Peer("eve", None), Access.ANY)


@pytest.mark.parametrize("now", [1.76e9, 1.8e9])
def test_validity_is_judged_by_the_given_clock(now: float) -> None:
    """Before its begin and after its end a certificate is refused."""
    peer = identify(CERTIFICATE, b"")
    check_valid(peer, 1.78e9)
    with pytest.raises(RequestRefusedError) as caught:
        check_valid(peer, now)
    assert caught.value.reason == Reason.CERTIFICATE


def test_one_valid_ca_of_a_name_is_enough() -> None:
    """A CA that was renewed under its name still vouches; one that ended does not."""
    ended = Anchor(CERTIFICATE["issuer"], 0.0, 1.0)
    peer = identify(CERTIFICATE, b"", [ended])
    renewed = replace(ended, ends=4e9)
    check_valid(peer, 1.78e9, [ended, renewed])
    with pytest.raises(RequestRefusedError, match="CA"):
        check_valid(peer, 1.78e9, [replace(renewed, subject="other")])
    with pytest.raises(RequestRefusedError, match="CA"):
        check_valid(peer, 1.78e9, [ended])


def test_20_a_clock_that_is_behind_proves_only_ends() -> None:
    """What is too young for a clock that is wrong may have begun by now."""
    peer = identify(CERTIFICATE, b"")
    check_valid(peer, 1.76e9, behind=True)
    with pytest.raises(RequestRefusedError):
        check_valid(peer, 1.8e9, behind=True)


def test_a_peer_is_pinned_by_the_last_of_its_chain() -> None:
    """An intermediate CA is no anchor, and nobody without a chain has one."""
    first, last = Anchor("a", 0.0, 1.0, "1"), Anchor("b", 0.0, 1.0, "2")
    assert is_pinned(identify(CERTIFICATE, b"", [first, last]), [last])
    assert not is_pinned(identify(CERTIFICATE, b"", [first, last]), [first])
    assert not is_pinned(
        identify(CERTIFICATE, b"", [last]), [replace(last, serial="3")]
    )
    assert not is_pinned(identify(CERTIFICATE, b""), [last])


@pytest.mark.parametrize("spelling", ["ab1", "0ab1"])
def test_serials_are_compared_as_numbers(spelling: str) -> None:
    """Leading zeros do not let a revoked certificate through."""
    peer = identify(CERTIFICATE, b"")
    with pytest.raises(RequestRefusedError):
        check_revoked(peer, lambda: ["1", spelling])
    check_revoked(peer, lambda: ["ab10", "b1"])
    check_revoked(LOCAL, lambda: ["", "0"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestRefusedError, 400),
        (BundleRefusedError, 400),
        (DeviceError, 500),
        (IllegalTransitionError, 500),
    ],
)
def test_a_status_follows_who_has_to_act(error: type[AgentError], status: int) -> None:
    """A reason may have a status of its own; else the branch of the error decides."""
    assert status_of(error("x", reason=Reason.INPUT)) == status
    for reason, known in STATUS.items():
        assert status_of(error("x", reason=reason)) == known


def test_13_an_order_for_a_revoked_bundle_is_a_conflict() -> None:
    """The request was well formed; what the owner said since stands against it."""
    for error in (RequestRefusedError, BundleRefusedError):
        assert status_of(error("x", reason=Reason.REVOKED)) == 409


@given(st.sampled_from([reason for reason in Reason if reason]))
def test_every_problem_says_what_to_do(reason: Reason) -> None:
    """Without advice of its own, a problem has that of its reason."""
    problem = describe_problem(409, reason, "why")
    assert problem["todo"] == EXPLANATIONS[reason].todo
    assert problem["title"] == "Conflict"
