"""The inbox: files of a slice that come in pieces, from anyone an operator is.

Numbers in test names are those of the attack list of the issue.
"""

import errno
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from agent.core.reasons import Reason
from agent.endpoint.needs import Uploads
from agent.errors import (
    AgentError,
    BundleRefusedError,
    DeviceError,
    RequestRefusedError,
)
from agent.store import Inbox, Store
from agent.store.inbox import MAX_FILES
from agent.store.slice_path import MAX_METADATA_BYTES, check_slice_path
from agent.update.needs import Inbox as NeededInbox
from tests.fakes.disks import SteppedDisk, fail_at
from tests.fakes.stored import content, installed

MAX = 100_000
BODY = content(1)
SHA = installed(1).sha256
SIZE = len(BODY)


def test_what_came_later_is_not_removed_with_a_slice(inbox: Inbox) -> None:
    """Neither a part nor a placed file of the next slice goes with the one before."""
    placed = upload(inbox, "metadata/timestamp.json")
    for more in (b"the next bundle", b"another one"):
        since = inbox.changes
        inbox.append(digest(more), len(more) + 1, 0, more)
        assert not inbox.clear_unless_changed(since)
        assert (inbox.offset(digest(more)), placed.is_file()) == (len(more), True)
    since = inbox.changes
    placed = upload(inbox, "metadata/2.targets.json", b"{}")
    assert not inbox.clear_unless_changed(since)
    assert placed.is_file()
    assert inbox.clear_unless_changed(inbox.changes)
    assert (placed.is_file(), inbox.filled(), inbox.offset(SHA)) == (False, False, 0)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give a state directory."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return state


@pytest.fixture
def inbox(state: Path) -> Inbox:
    """Give an empty inbox."""
    return Inbox(state, MAX)


def digest(body: bytes) -> str:
    """Return the name of an upload."""
    return hashlib.sha256(body).hexdigest()


def upload(inbox: Inbox, path: str, body: bytes = BODY) -> Path:
    """Upload what is missing of a file and place it; return where it lies."""
    start = inbox.offset(digest(body))
    inbox.append(digest(body), len(body), start, body[start:])
    inbox.place(digest(body), len(body), path)
    return inbox.folder / path


def reason_of(call: Callable[[], object]) -> str:
    """Return why a call was refused or failed, or an empty string."""
    try:
        call()
    except AgentError as err:
        return str(err.reason)
    return ""


def files(inbox: Inbox) -> list[str]:
    """List everything in the inbox but folders."""
    root = inbox.folder.parent
    return sorted(
        str(found.relative_to(root))
        for found in root.rglob("*")
        if found.is_symlink() or not found.is_dir()
    )


def test_it_is_what_others_need(inbox: Inbox) -> None:
    """It satisfies both Protocols, which mypy checks in these assignments."""
    uploads: Uploads = inbox
    needed: NeededInbox = inbox
    assert (uploads.offset(SHA), needed.filled()) == (0, False)


class TestUploads:
    """Piece by piece, resumed where it stopped."""

    def test_pieces_become_a_file(self, inbox: Inbox) -> None:
        """Offsets count up, and the placed file has all bytes, read-only."""
        told = []
        for start in range(0, SIZE, 1500):
            piece = BODY[start : start + 1500]
            told.append(inbox.append(SHA, SIZE, start, piece))
            assert inbox.offset(SHA) == told[-1]
        inbox.place(SHA, SIZE, "metadata/1.root.json")
        assert told == [1500, 3000, 4500, 5000]
        placed = inbox.folder / "metadata" / "1.root.json"
        assert placed.read_bytes() == BODY
        assert oct(placed.stat().st_mode & 0o777) == "0o400"
        assert inbox.offset(SHA) == SIZE

    def test_it_goes_on_after_a_restart(self, inbox: Inbox, state: Path) -> None:
        """Half an upload and a placed one are there in the next life."""
        upload(inbox, "targets/models/kws/8.bundle", content(2))
        inbox.append(SHA, SIZE, 0, BODY[:2000])
        again = Inbox(state, MAX)
        assert again.offset(installed(2).sha256) == SIZE
        assert again.append(SHA, SIZE, 2000, BODY[2000:]) == SIZE
        again.place(SHA, SIZE, "metadata/timestamp.json")
        assert again.filled()

    def test_filled_with_the_timestamp(self, inbox: Inbox) -> None:
        """A slice is there once the file is that names all others."""
        upload(inbox, "metadata/1.root.json")
        assert not inbox.filled()
        upload(inbox, "metadata/timestamp.json", content(2))
        assert inbox.filled()
        inbox.clear()
        assert (inbox.filled(), files(inbox), inbox.offset(SHA)) == (False, [], 0)

    def test_a_file_is_replaced(self, inbox: Inbox) -> None:
        """A newer file takes the name, and the older upload is gone."""
        upload(inbox, "metadata/timestamp.json")
        placed = upload(inbox, "metadata/timestamp.json", content(2))
        assert placed.read_bytes() == content(2)
        assert (inbox.offset(SHA), inbox.offset(installed(2).sha256)) == (0, SIZE)

    def test_the_same_bytes_may_have_two_names(self, inbox: Inbox) -> None:
        """One upload, two places, counted once; each can be replaced alone."""
        upload(inbox, "targets/a")
        for _ in range(2):
            inbox.place(SHA, SIZE, "targets/b")
        upload(inbox, "targets/a", content(2))
        assert (inbox.folder / "targets" / "a").read_bytes() == content(2)
        assert (inbox.folder / "targets" / "b").read_bytes() == BODY
        assert inbox.offset(SHA) == SIZE
        assert upload(inbox, "targets/b", content(2)).read_bytes() == content(2)
        assert inbox.offset(SHA) == 0

    def test_repeating_is_harmless(self, inbox: Inbox) -> None:
        """A client that lost the answer asks again: nothing more to send, placed."""
        inbox.append(SHA, SIZE, 0, BODY)
        assert inbox.append(SHA, SIZE, SIZE, b"") == SIZE
        for _ in range(2):
            inbox.place(SHA, SIZE, "targets/a")
            assert inbox.append(SHA, SIZE, SIZE, b"") == SIZE
        assert len(files(inbox)) == 2

    @pytest.mark.parametrize("offset", [-1, 1999, 2001, 0])
    def test_47_another_offset_is_refused(self, inbox: Inbox, offset: int) -> None:
        """Overlapping and sparse pieces are refused, and change nothing."""
        inbox.append(SHA, SIZE, 0, BODY[:2000])
        with pytest.raises(RequestRefusedError, match="goes on at 2000") as caught:
            inbox.append(SHA, SIZE, offset, BODY[2000:3000])
        assert caught.value.reason == Reason.REQUEST
        assert inbox.offset(SHA) == 2000

    @pytest.mark.parametrize(
        ("length", "body", "reason"),
        [
            (0, b"", Reason.LENGTH),
            (-5, b"", Reason.LENGTH),
            (10, BODY[:11], Reason.LENGTH),
            (MAX + 1, BODY, Reason.TOO_LARGE),
            (2**63, BODY, Reason.TOO_LARGE),
        ],
    )
    def test_52_lengths_are_bounded(
        self, inbox: Inbox, length: int, body: bytes, reason: Reason
    ) -> None:
        """Nothing, more than was said, more than fits: refused before it is written."""
        with pytest.raises(BundleRefusedError) as caught:
            inbox.append(SHA, length, 0, body)
        assert (caught.value.reason, files(inbox)) == (reason, [])

    @pytest.mark.parametrize("name", ["", "../" + "a" * 61, SHA.upper(), SHA + "\n"])
    def test_names_are_digests(self, inbox: Inbox, name: str) -> None:
        """Nothing but a SHA-256 names an upload."""
        for call in (
            lambda: inbox.offset(name),
            lambda: inbox.append(name, 10, 0, b"1"),
            lambda: inbox.place(name, 10, "targets/a"),
        ):
            with pytest.raises(RequestRefusedError):
                call()

    def test_2_other_bytes_get_no_place(self, inbox: Inbox) -> None:
        """One byte flipped on the way: refused, removed, and sent again."""
        inbox.append(SHA, SIZE, 0, b"x" + BODY[1:])
        with pytest.raises(BundleRefusedError) as caught:
            inbox.place(SHA, SIZE, "targets/a")
        assert (caught.value.reason, inbox.offset(SHA)) == (Reason.DIGEST, 0)
        assert upload(inbox, "targets/a").read_bytes() == BODY

    @pytest.mark.parametrize("count", [0, 4999])
    def test_4_what_is_not_whole_gets_no_place(self, inbox: Inbox, count: int) -> None:
        """Nothing and half an upload are refused; the half is not lost."""
        inbox.append(SHA, SIZE, 0, BODY[:count])
        with pytest.raises(BundleRefusedError) as caught:
            inbox.place(SHA, SIZE, "targets/a")
        assert (caught.value.reason, inbox.offset(SHA)) == (Reason.LENGTH, count)

    def test_66_what_rotted_is_sent_again(self, inbox: Inbox) -> None:
        """A placed file that changed is found when it is placed again."""
        placed = upload(inbox, "targets/a")
        placed.chmod(0o600)
        placed.write_bytes(b"x" + BODY[1:])
        with pytest.raises(BundleRefusedError):
            inbox.place(SHA, SIZE, "targets/a")
        assert inbox.offset(SHA) == 0
        assert upload(inbox, "targets/a").read_bytes() == BODY
        inbox.clear()
        assert inbox._taken == 0


class TestLimits:
    """What uploads may take together."""

    def test_uploads_share_the_room(self, inbox: Inbox) -> None:
        """What would not fit beside the others is refused before it begins."""
        for number in range(3):
            body = bytes([number]) * 30_000
            inbox.append(digest(body), len(body), 0, body)
        with pytest.raises(DeviceError) as caught:
            inbox.append(SHA, 10_001, 0, BODY)
        assert caught.value.reason == Reason.QUOTA
        inbox.append(SHA, 10_000, 0, BODY)
        with pytest.raises(DeviceError):
            inbox.append("c" * 64, 5001, 0, BODY)
        inbox.append("c" * 64, 5000, 0, BODY)

    def test_announced_lengths_take_no_room(self, inbox: Inbox) -> None:
        """Two large announcements are let in; the bytes decide who comes through."""
        for name in ("a" * 64, "b" * 64):
            inbox.append(name, 80_000, 0, BODY)
        inbox.append("a" * 64, 80_000, SIZE, bytes(15_000))
        for name, start in (("a" * 64, 20_000), ("b" * 64, SIZE)):
            with pytest.raises(DeviceError):
                inbox.append(name, 100_000, start, bytes(1))

    def test_53_a_million_files_are_not_taken(self, state: Path) -> None:
        """The number of files is bounded; those that began go on."""
        inbox = Inbox(state, 10**9)
        names = [f"{number:064x}" for number in range(MAX_FILES)]
        for name in names:
            inbox.append(name, 2, 0, b"1")
        with pytest.raises(DeviceError) as caught:
            inbox.append("f" * 64, 2, 0, b"1")
        assert caught.value.reason == Reason.QUOTA
        assert inbox.append(names[0], 2, 1, b"2") == 2

    def test_the_store_is_asked_for_room(self, state: Path) -> None:
        """An upload is part of the store's quota, and its rubbish makes room."""
        store = Store.open(state, quota_bytes=3 * SIZE)
        inbox = Inbox(state, MAX, make_room=store.make_room)
        with store.stage(installed(2).sha256, SIZE) as staging:
            staging.write(memoryview(content(2)))
            staging.commit()
        upload(inbox, "targets/a")
        upload(inbox, "targets/b", content(3))
        upload(inbox, "targets/c", content(4))
        assert not store.has_object(installed(2).sha256)
        with pytest.raises(DeviceError) as caught:
            upload(inbox, "targets/d", content(5))
        assert caught.value.reason == Reason.QUOTA
        with pytest.raises(DeviceError):
            store.make_room(1)
        store.close()

    def test_metadata_is_small(self, state: Path) -> None:
        """No metadata is longer than python-tuf takes, targets may be."""
        large = Inbox(state, 10 * MAX_METADATA_BYTES)
        body = bytes(MAX_METADATA_BYTES + 1)
        large.append(digest(body), len(body), 0, body)
        with pytest.raises(BundleRefusedError) as caught:
            large.place(digest(body), len(body), "metadata/1.root.json")
        assert caught.value.reason == Reason.TOO_LARGE
        large.place(digest(body), len(body), "targets/large")
        large.clear()

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (errno.ENOSPC, Reason.DISK_FULL),
            (errno.EDQUOT, Reason.DISK_FULL),
            (errno.EROFS, Reason.READ_ONLY),
            (errno.EIO, Reason.STATE),
            (errno.EMFILE, Reason.DESCRIPTORS),
        ],
    )
    def test_65_errors_at_every_step(
        self, state: Path, error: int, reason: Reason
    ) -> None:
        """Whichever step fails: a DeviceError, and the next try succeeds."""
        for number in range(1, 100):
            disk = SteppedDisk()
            inbox = Inbox(state, MAX, disk)
            disk.before = fail_at(len(disk.steps) + number, error, ever_after=False)
            told = reason_of(lambda: upload(inbox, "metadata/timestamp.json"))  # noqa: B023 - called at once
            if not told:
                break
            assert told == reason
            upload(inbox, "metadata/timestamp.json")
            assert inbox.filled()
            inbox.clear()
            assert (files(inbox), inbox._taken) == ([], 0)
        assert number > 8


class TestPlanted:
    """Names that lie there already, and lead elsewhere."""

    @pytest.mark.parametrize("kind", ["link", "hardlink", "pipe"])
    def test_67_a_planted_part_is_replaced(
        self, inbox: Inbox, state: Path, kind: str
    ) -> None:
        """What was planted is gone after a start, and never written through."""
        outside = state / "precious"
        outside.write_bytes(b"kept")
        part = state / "inbox" / "part" / SHA
        if kind == "link":
            part.symlink_to(outside)
        elif kind == "hardlink":
            part.hardlink_to(outside)
        else:
            os.mkfifo(part)
        if kind != "hardlink":  # it has 4 bytes, so another offset is the next
            with pytest.raises(DeviceError):
                inbox.append(SHA, SIZE, 0, BODY)
        assert upload(Inbox(state, MAX), "targets/a").read_bytes() == BODY
        assert outside.read_bytes() == b"kept"

    def test_67_a_planted_file_is_replaced_by_name(
        self, inbox: Inbox, state: Path
    ) -> None:
        """A link in the place of a file of the slice is replaced, not followed."""
        outside = state / "precious"
        outside.write_bytes(b"kept")
        (inbox.folder / "metadata").mkdir()
        (inbox.folder / "metadata" / "timestamp.json").symlink_to(outside)
        assert upload(inbox, "metadata/timestamp.json").read_bytes() == BODY
        assert not (inbox.folder / "metadata" / "timestamp.json").is_symlink()
        assert outside.read_bytes() == b"kept"

    def test_67_a_planted_folder_is_not_entered(
        self, inbox: Inbox, state: Path
    ) -> None:
        """A link in the place of a folder is refused, and left alone by clear."""
        outside = state / "outside"
        outside.mkdir()
        (outside / "kept").touch()
        (inbox.folder / "targets").symlink_to(outside)
        with pytest.raises(DeviceError):
            upload(inbox, "targets/a")
        inbox.clear()
        assert [found.name for found in outside.iterdir()] == ["kept"]
        assert upload(inbox, "targets/a").read_bytes() == BODY

    def test_a_file_is_no_folder(self, inbox: Inbox) -> None:
        """A path below a file, and a file in the place of a folder, are refused."""
        upload(inbox, "targets/a")
        upload(inbox, "targets/b/c")
        for path in ("targets/a/b", "targets/b"):
            with pytest.raises(RequestRefusedError):
                inbox.place(SHA, SIZE, path)


class TestAtOnce:
    """Uploads that meet."""

    def test_two_of_the_same_bytes(self, inbox: Inbox) -> None:
        """Each asks for the offset and goes on from there: whole, once."""
        trouble: list[AgentError] = []

        def send() -> None:
            while (start := inbox.offset(SHA)) < SIZE:
                try:
                    inbox.append(SHA, SIZE, start, BODY[start : start + 100])
                except RequestRefusedError:
                    continue  # the other one was first
            try:
                inbox.place(SHA, SIZE, "targets/a")
            except AgentError as err:
                trouble.append(err)

        run_at_once(send, send, send)
        assert trouble == []
        assert (inbox.folder / "targets" / "a").read_bytes() == BODY
        assert inbox._taken == SIZE

    def test_many_of_different_bytes(self, inbox: Inbox) -> None:
        """Files that come at the same time, some for the same name, are all whole."""

        def send(version: int) -> None:
            body = content(version)
            for _ in range(5):
                inbox.append(digest(body), SIZE, inbox.offset(digest(body)), b"")
                start = inbox.offset(digest(body))
                inbox.append(digest(body), SIZE, start, body[start:])
                inbox.place(digest(body), SIZE, f"targets/{version}")
                inbox.place(digest(body), SIZE, f"targets/{version % 2}/x")

        run_at_once(*(lambda version=version: send(version) for version in range(2, 8)))
        for version in range(2, 8):
            assert (inbox.folder / "targets" / str(version)).read_bytes() == content(
                version
            )
        assert inbox._taken == 6 * SIZE


def run_at_once(*calls: object) -> None:
    """Run calls in threads, and wait for all."""
    threads = [threading.Thread(target=call) for call in calls]  # type: ignore[arg-type]  # lambdas with a default
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


GOOD_PATHS = [
    "metadata/1.root.json",
    "metadata/timestamp.json",
    "metadata/12.fleet.json",
    "metadata/3.a%2Fb.json",
    f"targets/models/kws/{'a' * 64}.8.bundle",
    f"targets/fleet/devices/{'a' * 64}.{'b' * 32}",
    "targets/revoked.json",
    "targets/a/b/c/d/e/f/g/h",
]
BAD_PATHS = [
    *("", "/", "metadata", "metadata/", "metadata/.json", "metadata/a/1.root.json"),
    *("metadata/1.root.txt", "metadata/.1.root.json", "metadata/../1.root.json"),
    *("/etc/passwd", "../metadata/1.root.json", "targets", "targets/", "targets//a"),
    *(
        "targets/../a",
        "targets/a/..",
        "targets/a/../../../b",
        "targets/.",
        "targets/.a",
    ),
    *(
        "targets/a/.hidden",
        "targets/a\\b",
        "targets/a\0b",
        "targets/a\nb",
        "targets/a\n",
    ),
    *("targets/a b", "targets/\u202eb", "targets/ä", "targets/a/b/c/d/e/f/g/h/i"),
    *("targets/" + "a" * 201, "targets/" + "/".join(["a" * 100] * 6), "part/" + SHA),
    *("METADATA/1.root.json", "metadata/1.root.json\n", " metadata/1.root.json"),
    *("slice/metadata/1.root.json", "targets/a:b", "targets/*", "targets/$HOME"),
]


class TestPaths:
    """Only what a slice has."""

    @pytest.mark.parametrize("path", GOOD_PATHS)
    def test_paths_of_a_slice(self, inbox: Inbox, path: str) -> None:
        """What `tinyward repo` writes can be uploaded."""
        assert upload(inbox, path).read_bytes() == BODY

    @pytest.mark.parametrize("path", BAD_PATHS)
    def test_53_other_paths(self, inbox: Inbox, path: str) -> None:
        """Nothing else: refused before anything is made on the disk."""
        inbox.append(SHA, SIZE, 0, BODY)
        before = files(inbox), sorted(inbox.folder.rglob("*"))
        with pytest.raises(RequestRefusedError) as caught:
            inbox.place(SHA, SIZE, path)
        assert caught.value.reason == Reason.REQUEST
        assert (files(inbox), sorted(inbox.folder.rglob("*"))) == before

    @given(
        path=st.one_of(
            st.text(max_size=40),
            st.text("atrgesmdjon./\\%0\0-_ ~", max_size=40),
            st.lists(
                st.sampled_from(["targets", "metadata", "..", ".", "", "a", "1.json"])
            ).map("/".join),
            st.from_regex(r"targets(/[a-z.]{1,3}){1,4}", fullmatch=True),
        )
    )
    @example(path="targets/a/../b")
    @settings(max_examples=1000)
    def test_53_no_path_leads_out(self, path: str) -> None:
        """Law: what is let in is relative, normal, plain, and below its folder."""
        try:
            check_slice_path(path, 10)
        except RequestRefusedError:
            return
        assert path == os.path.normpath(path)
        assert path.isascii()
        assert re.search(r"[\\\s\0:*?\"'$&;|<>`]", path) is None
        top, *rest = path.split("/")
        assert top in {"metadata", "targets"}
        assert rest
        assert not any(segment.startswith(".") for segment in rest)
        assert top == "targets" or (len(rest) == 1 and rest[0].endswith(".json"))


BODIES = [bytes([65 + number]) * (number * 700 + 1) for number in range(6)]
LIMIT = 9000  # room for all bodies but one
PLACES = ["metadata/timestamp.json", "metadata/1.root.json", "targets/a", "targets/b/c"]


class Uploading(RuleBasedStateMachine):
    """Random orders of operations, restarts included, against a model in memory.

    Attributes:
        parts: Digest -> bytes sent so far; ``places``: path -> body.
    """

    bodies = Bundle("bodies")

    def __init__(self) -> None:
        super().__init__()

        self.folder = tempfile.TemporaryDirectory()
        self.state = Path(self.folder.name)
        self.parts: dict[str, bytes] = {}
        self.places: dict[str, bytes] = {}

    @initialize()
    def begin(self) -> None:
        """Begin with an empty inbox."""
        self.inbox = Inbox(self.state, LIMIT)

    @rule()
    def restart(self) -> None:
        """Die and live again."""
        self.inbox = Inbox(self.state, LIMIT)

    @rule(body=st.sampled_from(BODIES), count=st.integers(0, 5000), flip=st.booleans())
    def append(self, body: bytes, count: int, *, flip: bool) -> None:
        """Send the next bytes, right or wrong."""
        name, start = digest(body), self.offset(digest(body))
        piece = body[start : start + count]
        if flip and piece:
            piece = b"x" + piece[1:]
        told = reason_of(lambda: self.inbox.append(name, len(body), start, piece))
        full = bool(piece) and self.taken() + len(body) - start > LIMIT
        assert told == (Reason.QUOTA if full else "")
        if piece and not full:
            self.parts[name] = self.parts.get(name, b"") + piece

    @rule(body=st.sampled_from(BODIES), path=st.sampled_from(PLACES))
    def place(self, body: bytes, path: str) -> None:
        """Give an upload its place, if it is whole and right."""
        name = digest(body)
        sent = self.parts.get(name, body if body in self.places.values() else b"")
        told = reason_of(lambda: self.inbox.place(name, len(body), path))
        if len(sent) < len(body):
            assert told == Reason.LENGTH
            return
        self.parts.pop(name, None)
        assert told == ("" if sent == body else Reason.DIGEST)
        if sent == body:
            self.places[path] = body

    @rule()
    def clear(self) -> None:
        """Remove everything."""
        self.inbox.clear()
        self.parts.clear()
        self.places.clear()

    def offset(self, name: str) -> int:
        """Return the offset that the model expects."""
        whole = [body for body in self.places.values() if digest(body) == name]
        return len(whole[0] if whole else self.parts.get(name, b""))

    def taken(self) -> int:
        """Return the bytes that the model expects on the disk."""
        placed = sum(map(len, set(self.places.values())))
        return placed + sum(map(len, self.parts.values()))

    @invariant()
    def agrees(self) -> None:
        """The disk says what the model says."""
        if not hasattr(self, "inbox"):
            return
        for body in BODIES:
            assert self.inbox.offset(digest(body)) == self.offset(digest(body))
        for path in PLACES:
            found = self.inbox.folder / path
            there = found.read_bytes() if found.exists() else None
            assert there == self.places.get(path)
        assert self.inbox._taken == self.taken()
        assert self.inbox.filled() == ("metadata/timestamp.json" in self.places)

    def teardown(self) -> None:
        """Remove the folder."""
        self.folder.cleanup()


Uploading.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None
)
TestRandomOrders = Uploading.TestCase
