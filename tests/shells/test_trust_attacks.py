"""Attacks on metadata, by their numbers: from a disk and from a server, past or none.

Each line of the list (ota.md, section 4) that spoils a publication is one test; each
is refused with its reason, changes nothing, and the next good publication is believed.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.floors import Floors
from agent.core.reasons import Reason
from agent.publish.repository import KeyPlan
from agent.trust.notes import Remembered
from agent.trust.transport import Transport
from tests.fakes import toxic_server as toxic
from tests.fakes.board import Board
from tests.fakes.bundle_factory import NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.spoils import (
    Spoil,
    disguised,
    expect_refusal,
    next_root,
    older_snapshot,
    other_root,
    pad,
    publish_two,
    remove,
    repeat_signature,
    replace_root_keys,
    reseal,
    rotate_expired,
    say_more,
    second_snapshot,
    set_issued,
    set_version,
    sign_twice,
    stale_entry,
    swap_content,
    unlist_fleet,
    write,
    write_cut,
)
from tests.fakes.toxic_server import ToxicServer

TWO_OF_THREE = KeyPlan(targets_keys=3, targets_threshold=2)
QUICK = Transport(window_s=5.0, connect_s=5.0, pause_s=0.001)
DEEP = b"[" * 10_000
Case = tuple[str, Spoil, Reason]
Boards = Callable[[], Board]


@pytest.fixture
def repository(tmp_path: Path) -> SpoiledRepository:
    """Give a published repository whose targets need two of three keys."""
    return make_repository(
        tmp_path / "repo",
        {("kws", 1): good_bundle(1)},
        {"all": {"door": ("kws", 1)}},
        plan=TWO_OF_THREE,
    )


@pytest.fixture(params=["disk", "server"])
def boards(
    request: pytest.FixtureRequest, tmp_path: Path, repository: SpoiledRepository
) -> Iterator[Boards]:
    """Give what makes boards: of a directory, or of a server."""
    homes = (tmp_path / f"board-{number}" for number in range(9))
    if request.param == "disk":
        yield lambda: Board(next(homes), repository)
        return
    with ToxicServer(repository.path) as server:
        yield lambda: Board(
            next(homes), repository, address=server.url, transport=QUICK
        )


def cases(*table: Case) -> pytest.MarkDecorator:
    """Run a test for each line of a table."""
    lines = [pytest.param(spoil, reason, id=name) for name, spoil, reason in table]
    return pytest.mark.parametrize(("spoil", "reason"), lines)


def floors_of(board: Board) -> Floors:
    """Return what a board remembers."""
    return Remembered.of(board.notes, board.repository.root).load()


def survive(
    boards: Boards, repository: SpoiledRepository, spoil: Spoil, reason: Reason
) -> Board:
    """Refuse a spoiled second publication, keep the first, believe the third."""
    board = boards()
    board.refresh().desired(["all"])
    publish_two(repository)
    good = repository.copy(repository.path.with_name("good"))
    spoil(repository)
    before = floors_of(board)
    assert reason == board.refusal()
    assert board.trusted.find("kws", 1).fields.version == 1
    assert board.trusted.desired(["all"])[0][1].pipelines["door"].version == 1
    # A root that was signed by all its keys counts, whatever came after it.
    assert before == replace(floors_of(board), root=before.root)
    repository.restore(good)
    # What the true keys signed counts; only something newer supersedes it.
    for _ in range(2):
        repository.repository.rotate("timestamp", NOW)
    assert board.refresh().find("kws", 2).fields.version == 2
    return board


def refuse_at_first(
    boards: Boards, repository: SpoiledRepository, spoil: Spoil, reason: Reason
) -> None:
    """Refuse a spoiled publication on a board that has seen nothing yet."""
    publish_two(repository)
    spoil(repository)
    board = boards()
    assert reason == board.refusal()
    expect_refusal(Reason.UNREACHABLE, board.trusted.find, "kws", 1)


@pytest.fixture(params=[survive, refuse_at_first], ids=["later", "first"])
def attack(
    request: pytest.FixtureRequest, boards: Boards, repository: SpoiledRepository
) -> Callable[[Spoil, Reason], object]:
    """Give an attack on a board with a past, and on one without."""
    return lambda spoil, reason: request.param(boards, repository, spoil, reason)


Attack = Callable[[Spoil, Reason], object]


@cases(
    ("timestamp", lambda r: r.sign_by_stranger("timestamp"), Reason.SIGNATURE),
    ("snapshot", lambda r: r.sign_by_stranger("snapshot"), Reason.SIGNATURE),
    ("targets", lambda r: r.sign_by_stranger("targets"), Reason.SIGNATURE),
    ("fleet", lambda r: r.sign_by_stranger("fleet"), Reason.SIGNATURE),
    ("unsigned", lambda r: r.drop_signatures("timestamp", 0), Reason.SIGNATURE),
)
def test_1_what_a_stranger_signed(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """Each role by a key that nobody delegated to, or by none."""
    attack(spoil, reason)


@cases(
    ("timestamp", pad("timestamp", 17_000), Reason.TOO_LARGE),
    ("snapshot", pad("snapshot", 2_000_001), Reason.TOO_LARGE),
    ("targets", pad("targets", 5_000_001), Reason.TOO_LARGE),
    ("fleet", pad("fleet", 5_000_001), Reason.TOO_LARGE),
    ("root", write("metadata/2.root.json", b" " * 600_000), Reason.TOO_LARGE),
)
def test_5_metadata_without_end(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """Each role has its own limit; stolen online keys cannot raise it."""
    attack(spoil, reason)


@cases(
    ("one", lambda r: r.drop_signatures("targets", 1), Reason.THRESHOLD),
    ("one-for-two", sign_twice, Reason.THRESHOLD),
    ("listed-twice", repeat_signature, Reason.METADATA),
)
def test_6_one_signature_of_two(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """One key's signature does not count for two, under whatever name it stands."""
    attack(spoil, reason)


@cases(
    ("new-keys", next_root(replace_root_keys, "new"), Reason.SIGNATURE),
    ("old-keys", next_root(replace_root_keys, "old"), Reason.SIGNATURE),
)
def test_7_a_root_signed_by_one_side(
    attack: Attack, spoil: Spoil, reason: Reason
) -> None:
    """The keys that go and those that come have to sign, both."""
    attack(spoil, reason)


@cases(("two-ahead", other_root(3), Reason.REPLAYED))
def test_8_a_root_left_out(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """The next root has the next version, not the one after it."""
    attack(spoil, reason)


@cases(("again", other_root(1), Reason.REPLAYED))
def test_9_an_old_root_again(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """Version 1 in the place of version 2."""
    attack(spoil, reason)


@cases(("by-number", set_version("timestamp", 1), Reason.REPLAYED))
def test_11_an_older_timestamp(
    boards: Boards, repository: SpoiledRepository, spoil: Spoil, reason: Reason
) -> None:
    """Well signed, of a number below one that was seen."""
    survive(boards, repository, spoil, reason)


@cases(("named-by-a-newer-timestamp", older_snapshot, Reason.REPLAYED))
def test_12_an_older_snapshot(
    boards: Boards, repository: SpoiledRepository, spoil: Spoil, reason: Reason
) -> None:
    """The timestamp is new, what it names is not."""
    survive(boards, repository, spoil, reason)


@cases(
    ("older-entry", stale_entry, Reason.REPLAYED),
    ("role-forgotten", unlist_fleet, Reason.METADATA),
)
def test_13_older_targets_or_none(
    boards: Boards, repository: SpoiledRepository, spoil: Spoil, reason: Reason
) -> None:
    """The snapshot is new, what it lists is older, or left out."""
    survive(boards, repository, spoil, reason)


@cases(
    ("snapshot", second_snapshot, Reason.MIXED),
    (
        "targets",
        lambda r: r.file("targets").write_bytes(
            (r.path / "metadata/1.targets.json").read_bytes()
        ),
        Reason.MIXED,
    ),
)
def test_15_one_version_of_two_contents(
    attack: Attack, spoil: Spoil, reason: Reason
) -> None:
    """A second file of an announced version is not the announced one."""
    attack(spoil, reason)


def test_15_a_second_timestamp_of_one_version(
    boards: Boards, repository: SpoiledRepository
) -> None:
    """Of two timestamps with one number the first one counts, and its time."""
    board = boards()
    board.refresh()
    publish_two(repository)
    assert board.refresh().find("kws", 2).fields.version == 2
    floor, saved = board.trusted.clock_floor, dict(board.notes.saved)
    old = (repository.path / "metadata/2.snapshot.json").read_bytes()
    repository.resign("snapshot", lambda s: s.meta["fleet.json"])
    set_issued("2031-01-01T00:00:00Z")(repository)
    (repository.path / "metadata/2.snapshot.json").write_bytes(old)
    board.refresh()
    assert (board.trusted.clock_floor, board.notes.saved) == (floor, saved)
    assert board.trusted.desired(["all"])[0][1].pipelines["door"].version == 2


@cases(
    ("snapshot", swap_content("snapshot", "2.snapshot.json"), Reason.MIXED),
    ("targets", swap_content("targets", "2.targets.json"), Reason.MIXED),
    ("fleet", swap_content("fleet", "2.fleet.json"), Reason.MIXED),
)
def test_16_two_publications_mixed(
    attack: Attack, spoil: Spoil, reason: Reason
) -> None:
    """Each file is genuine; they do not belong together."""
    attack(spoil, reason)


@cases(
    ("root", rotate_expired, Reason.EXPIRED),
    ("timestamp", lambda r: r.expire("timestamp"), Reason.EXPIRED),
    ("snapshot", lambda r: r.expire("snapshot"), Reason.EXPIRED),
    ("targets", lambda r: r.expire("targets"), Reason.EXPIRED),
    ("fleet", lambda r: r.expire("fleet"), Reason.EXPIRED),
)
def test_18_expired_metadata(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """Each role for itself; the model that runs is not asked."""
    attack(spoil, reason)


@cases(
    ("words", set_issued("soon"), Reason.METADATA),
    ("number", set_issued(7), Reason.METADATA),
)
def test_23_an_issue_time_that_is_none(
    attack: Attack, spoil: Spoil, reason: Reason
) -> None:
    """Signed nonsense moves no clock."""
    attack(spoil, reason)


@cases(
    ("rsa", disguised("rsa", "rsassa-pss-sha256"), Reason.SIGNATURE),
    ("elliptic", disguised("ecdsa", "ecdsa-sha2-nistp256"), Reason.SIGNATURE),
    ("no-such-type", disguised("x25519", "ed25519"), Reason.METADATA),
    ("no-such-scheme", disguised("ed25519", "ed448"), Reason.METADATA),
)
def test_27_a_key_of_another_kind(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """A key that is not what it says verifies nothing; the owner can mend it."""
    attack(spoil, reason)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "fleet"])
def test_28_what_no_specification_knows_is_let_be(
    boards: Boards, repository: SpoiledRepository, role: str
) -> None:
    """Unknown fields and a later specification of the same kind, well signed."""
    publish_two(repository)
    say_more(role)(repository)
    assert boards().refresh().find("kws", 2).fields.version == 2


@cases(
    ("timestamp", say_more("timestamp", "2.0.0"), Reason.METADATA),
    ("targets", say_more("targets", "2.0.0"), Reason.METADATA),
    ("nonsense", say_more("fleet", "new"), Reason.METADATA),
)
def test_28_another_specification(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """What may mean something else is not read."""
    attack(spoil, reason)


def sealed(content: bytes) -> Spoil:
    """Let true online keys vouch for any bytes as targets.json."""

    def spoil(repository: SpoiledRepository) -> None:
        file = repository.file("targets")
        reseal(repository, "targets", content)
        file.write_bytes(content)

    return spoil


@cases(
    ("garbage", write("metadata/timestamp.json", b"{"), Reason.METADATA),
    ("nothing", write("metadata/timestamp.json", b""), Reason.METADATA),
    ("deep", write("metadata/timestamp.json", DEEP), Reason.METADATA),
    ("deep-root", write("metadata/2.root.json", DEEP), Reason.METADATA),
    ("deep-and-sealed", sealed(b"[" * 100_000), Reason.METADATA),
    ("long-number", sealed(b'{"signed": 1' + b"0" * 9_999 + b"}"), Reason.METADATA),
    ("nan", sealed(b'{"signed": NaN}'), Reason.METADATA),
    ("no-utf-8", sealed(b'{"signed": "\xff\xfe"}'), Reason.METADATA),
    ("surrogate", sealed(b'{"signed": "\\ud800"}'), Reason.METADATA),
    ("another-type", swap_content("timestamp", "3.fleet.json"), Reason.METADATA),
    ("absurd-version", set_version("timestamp", 2**60), Reason.METADATA),
    ("no-snapshot", remove("metadata/3.snapshot.json"), Reason.METADATA),
    ("no-fleet", remove("metadata/3.fleet.json"), Reason.METADATA),
    ("flipped", lambda r: r.flip_bit(r.file("snapshot"), 80), Reason.DIGEST),
    ("cut", lambda r: write_cut(r, "targets"), Reason.LENGTH),
)
def test_29_what_is_no_metadata(attack: Attack, spoil: Spoil, reason: Reason) -> None:
    """No JSON, too deep, too long, of another type, or not there."""
    attack(spoil, reason)


def spaced(raw: bytes) -> bytes:
    """Add blanks where JSON allows them."""
    return json.dumps(json.loads(raw), indent=7).encode() + b"\n\n"


def escaped(raw: bytes) -> bytes:
    """Spell every letter of every string as an escape."""
    return raw.replace(b'"snapshot.json"', b'"\\u0073napshot.json"')


def reordered(raw: bytes) -> bytes:
    """Turn the order of all keys round."""
    tree = json.loads(raw)
    signed = dict(reversed(tree["signed"].items()))
    return json.dumps({"signed": signed, "signatures": tree["signatures"]}).encode()


def said_twice(raw: bytes) -> bytes:
    """Say other values before the true ones: a parser takes the last."""
    lie = b'"version": 9, "x-issued": "2099-01-01T00:00:00Z", "expires": "x", '
    return raw.replace(b'"signed": {', b'"signed": {' + lie, 1)


@pytest.mark.parametrize("edit", [spaced, escaped, reordered, said_twice])
def test_30_edits_that_change_no_value(
    boards: Boards, repository: SpoiledRepository, edit: Callable[[bytes], bytes]
) -> None:
    """What is returned is what was signed, never what stands in the raw bytes."""
    publish_two(repository)
    file = repository.file("timestamp")
    raw = spaced(file.read_bytes())
    edited = edit(raw)
    assert (edited != raw) or edit is spaced
    file.write_bytes(edited)
    board = boards()
    assert board.refresh().find("kws", 2).fields.version == 2
    assert board.trusted.issued == board.trusted.clock_floor == NOW


def test_50_a_repository_that_is_not_there(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """An unmounted disk is not taken for an empty repository, nor for a refusal."""
    board = Board(tmp_path / "board", repository)
    board.refresh()
    shutil.move(repository.path, tmp_path / "unmounted")
    assert board.refusal() == Reason.UNREACHABLE
    shutil.move(tmp_path / "unmounted", repository.path)
    assert board.refresh().find("kws", 1).fields.version == 1


@pytest.mark.parametrize("line", ["204 No", "304 Not Modified", "101 Switching"])
def test_48_what_nobody_wants_may_be_broken(
    tmp_path: Path, repository: SpoiledRepository, line: str
) -> None:
    """An answer without a body, with a chunk of a negative size, is still refused.

    The connection is tidied up by reading such a body, where urllib3 raises ValueError.
    """
    head = f"HTTP/1.1 {line}\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n"
    with ToxicServer(repository.path) as server:
        home = tmp_path / "board"
        board = Board(home, repository, address=server.url, transport=QUICK)
        server.script("metadata/timestamp.json", toxic.raw(head.encode()))
        assert board.refusal() == Reason.UNREACHABLE
        server.scripts.clear()
        assert board.refresh().find("kws", 1).fields.version == 1
