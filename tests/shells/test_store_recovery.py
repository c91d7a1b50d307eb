"""A damaged state.db, its copy, and state.db of other schemas.

Numbers in test names are those of the attack list of the issue.
"""

import errno
import logging
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from agent.core.installed import Slots
from agent.core.reasons import Reason
from agent.core.update_machine import Job, Phase
from agent.core.updates import Hold, Report, SetAside
from agent.errors import DeviceError
from agent.store import Store
from agent.store.schema import SCHEMA, Kept, digest_of, parse_kept
from agent.store.spare import Envelope
from agent.store.state import FORMAT
from tests.fakes.disks import SteppedDisk, fail_at, fast_directory
from tests.fakes.schema_1 import BOARD, schema_1
from tests.fakes.stored import bring_in, check_whole, installed

HOLD = Hold("door", "fleet/groups/all", 4)
JOB = Job(pipeline="door", model="kws", version=4, sha256="a" * 64, id=9)
REPORT = Report(8, "door", "kws", 3, "a" * 64, "fleet/groups/all", 4, "committed")


@pytest.fixture
def state() -> Iterator[Path]:
    """Give a closed state directory in which everything that is kept is kept."""
    with fast_directory() as directory:
        yield prepare(directory / "state")


def prepare(state: Path) -> Path:
    """Make a board that keeps something of everything, and close it."""
    with opened(state) as store:
        for version in (1, 2):
            bring_in(store, version)
        store.commit("door", installed(2), REPORT, factory=True, hold=HOLD)
        store.set_aside("b" * 64, Reason.HANG)
        store.save_note("trust.floors", b'{"time": 1}\xff')
        store.board_id()
        store.next_update_id()
        store.save_job(JOB)
    return state


class opened:  # noqa: N801 - reads like open()
    """A store that is closed at the end of the block."""

    def __init__(self, state: Path, disk: SteppedDisk | None = None) -> None:
        self._store = Store.open(state, disk, clock=lambda: 1_790_000_000.0)

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *details: object) -> None:
        self._store.close()


def facts(store: Store) -> tuple[object, ...]:
    """Return all that must outlive a damaged file."""
    return (
        store.slots("door"),
        store.pipelines(),
        store.version_floor("kws"),
        store.all_set_aside(),
        store.holds(),
        store.load_note("trust.floors"),
        store.board_id(),
        check_whole(store),
    )


def known(state: Path) -> tuple[object, ...]:
    """Return the facts of a state directory."""
    with opened(state) as store:
        return facts(store)


def refusal(state: Path) -> DeviceError:
    """Return why a state directory cannot be opened."""
    with pytest.raises(DeviceError) as caught:
        Store.open(state).close()
    return caught.value


def cut(path: Path, keep: int) -> None:
    """Cut a file short."""
    path.write_bytes(path.read_bytes()[:keep])


def scribble(path: Path, place: int, mask: int = 0xFF) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= mask
    path.chmod(0o600)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "lost": Path.unlink,
    "empty": lambda path: cut(path, 0),
    "one_byte": lambda path: cut(path, 1),
    "first_page": lambda path: cut(path, 4096),
    "half": lambda path: cut(path, path.stat().st_size // 2),
    "rubbish": lambda path: scribble(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


def make_foreign(path: Path) -> None:
    """Put someone else's database there."""
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE albums (name TEXT)")
    connection.close()


DAMAGES["foreign"] = make_foreign


class TestCopy:
    """What matters outlives its file."""

    @pytest.mark.parametrize("kind", DAMAGES)
    def test_66_a_damaged_database_is_rebuilt(
        self, state: Path, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Slots, floors, quarantine, holds and notes come back; the job is over."""
        before = known(state)
        DAMAGES[kind](state / "state.db")
        with caplog.at_level(logging.WARNING), opened(state) as store:
            assert facts(store) == before
            assert (store.load_job(), store.reports()) == (None, [])
            bring_in(store, 3)
            assert check_whole(store) == 3
        assert [record.message for record in caplog.records] == ["state.rebuilt"]
        assert known(state)[2] == 3

    def test_66_the_damaged_file_is_kept(self, state: Path) -> None:
        """It is moved aside under a number; the last two are kept."""
        path = state / "state.db"
        for number in range(1, 5):
            path.write_bytes(b"damage %d" % number)
            known(state)
        kept = {found.name: found.read_bytes() for found in state.glob("*damaged*")}
        assert kept == {
            "state.db.damaged-3": b"damage 3",
            "state.db.damaged-4": b"damage 4",
        }

    def test_66_a_hot_journal_goes_with_its_file(self, state: Path) -> None:
        """SQLite must not play the journal of the damaged file into the new one."""
        before = known(state)
        leave_hot_journal(state / "state.db")
        scribble(state / "state.db", FORMAT)
        assert known(state) == before
        names = sorted(found.name for found in state.glob("state*"))
        assert names == [
            "state.db",
            "state.db.damaged-1",
            "state.db.damaged-1-journal",
            "state.json",
        ]

    def test_60_a_hot_journal_is_played_back(self, state: Path) -> None:
        """A transaction that the power cut short never happened."""
        before = known(state)
        leave_hot_journal(state / "state.db")
        assert known(state) == before
        assert list(state.glob("state.db*")) == [state / "state.db"]

    def test_66_a_flipped_byte_changes_nothing(self, state: Path) -> None:
        """One byte of state.db, header first: all is as before, and can be written.

        SQLite finds torn pages; a digit in a row is found by the seal.
        """
        before, path = known(state), state / "state.db"
        whole = path.read_bytes()
        chance = random.Random(66)  # noqa: S311 - places, not secrets
        places = [*range(100), *chance.sample(range(100, len(whole)), 150)]
        for place in places:
            path.write_bytes(whole)
            scribble(path, place, 1 << chance.randrange(8))
            with opened(state) as store:
                assert (place, facts(store)) == (place, before)
                store.save_job(JOB)
                store.save_note("after", str(place).encode())
                store.forgive("nothing")

    def test_66_a_flipped_name_or_key_changes_nothing(self, state: Path) -> None:
        """Names of columns, keys in indexes: what SQLite alone would take as it is."""
        before, path = known(state), state / "state.db"
        whole = path.read_bytes()
        words = (b"pipeline", b"active", b"generation", b"version", b"value", b"NULL")
        places = [
            found.start() + 1
            for word in (*words, b"door", b"kws", b"trust.floors", b"bbbb")
            for found in re.finditer(word, whole)
        ]
        assert len(places) > 30
        for place in places:
            path.write_bytes(whole)
            scribble(path, place, 0x80 if place % 2 else 1)
            with opened(state) as store:
                assert (place, facts(store)) == (place, before)
                store.save_note("after", str(place).encode())

    def test_66_a_forged_row_does_not_count(self, state: Path) -> None:
        """A floor that fell in a whole file is raised again from the copy."""
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute("UPDATE floors SET version = 0")
        connection.close()
        assert known(state)[2] == 2

    def test_66_a_job_that_changed_is_none(self, state: Path) -> None:
        """COMMIT is not repeated from a row that rotted."""
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute(
                "UPDATE job SET job = replace(job, '\"id\":9', '\"id\":8')"
            )
        connection.close()
        with opened(state) as store:
            assert store.load_job() is None
            assert check_whole(store) == 2

    def test_66_a_report_that_rotted_is_left_out(self, state: Path) -> None:
        """History that makes no sense does not hide the rest of it."""
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute("UPDATE reports SET report = x'ff'")
        connection.close()
        with opened(state) as store:
            store.add_report(replace(REPORT, id=20))
            assert store.reports() == [replace(REPORT, id=20)]

    @pytest.mark.parametrize("kind", ["lost", "half", "rubbish", "flipped", "link"])
    def test_66_a_damaged_copy_is_renewed(self, state: Path, kind: str) -> None:
        """While state.db is whole the copy is only that: it is written anew."""
        before, path = known(state), state / "state.json"
        whole = path.read_bytes()
        if kind == "flipped":
            scribble(path, len(whole) // 2, 1)
        elif kind == "link":
            path.rename(state / "elsewhere")
            path.symlink_to(state / "elsewhere")
        else:
            DAMAGES[kind](path)
        assert known(state) == before
        assert (path.read_bytes(), path.is_symlink()) == (whole, False)
        (state / "state.db").write_bytes(b"damage")
        assert known(state) == before

    @pytest.mark.parametrize("kind", ["lost", "half", "rubbish", "flipped"])
    def test_66_both_damaged_is_refused(self, state: Path, kind: str) -> None:
        """Without either nothing is guessed, and nothing is touched."""
        copy = state / "state.json"
        if kind == "flipped":
            scribble(copy, copy.stat().st_size // 2, 1)
        else:
            DAMAGES[kind](copy)
        (state / "state.db").write_bytes(b"damage")
        for _ in range(2):
            error = refusal(state)
            assert (error.reason, "state.db" in str(error)) == (Reason.STATE, True)
        assert (state / "state.db").read_bytes() == b"damage"

    def test_66_lost_with_all_models_and_a_damaged_copy(self, state: Path) -> None:
        """A copy, even a damaged one, says that this is no new board."""
        shutil.rmtree(state / "obj")
        (state / "state.db").unlink()
        cut(state / "state.json", 10)
        assert refusal(state).reason == Reason.STATE

    def test_numbers_are_not_given_twice(self, state: Path) -> None:
        """After the reports were lost the next number is above all that were given."""
        with opened(state) as store:
            for number in range(9, 200):
                assert store.next_update_id() in {number, number + 1}
                store.add_report(replace(REPORT, id=number))
            last = store.next_update_id()
        for _ in range(2):
            (state / "state.db").write_bytes(b"damage")
            with opened(state) as store:
                given = store.next_update_id()
                assert last <= given <= last + 200
                store.add_report(replace(REPORT, id=given))
                assert store.next_update_id() == given + 1
                last = given + 1

    def test_a_full_disk_at_the_start_only_delays_the_copy(self, state: Path) -> None:
        """A committed model boots without room for the copy; a change writes it."""
        (state / "state.json").unlink()
        disk = SteppedDisk()
        disk.before = fail_at(1, errno.ENOSPC, ever_after=True)
        with opened(state, disk) as store:
            assert check_whole(store) == 2
            with pytest.raises(DeviceError) as caught:
                store.save_note("a", b"1")
            assert caught.value.reason == Reason.DISK_FULL
            assert store.load_note("a") is None
            disk.before = lambda _number: None
            store.save_note("a", b"1")
        (state / "state.db").write_bytes(b"damage")
        with opened(state) as store:
            assert store.load_note("a") == b"1"

    def test_a_change_that_fails_takes_its_copy_back(self, state: Path) -> None:
        """The copy was written first; when COMMIT fails it is made equal again."""
        with opened(state) as store:
            before = (facts(store), (state / "state.json").read_bytes())
            shell = sqlite3.connect(state / "state.db", isolation_level=None)
            shell.execute("BEGIN")
            shell.execute("SELECT * FROM slots").fetchall()
            with pytest.raises(DeviceError) as caught:
                store.commit("door", installed(1))
            assert caught.value.reason == Reason.LOCKED
            shell_end(shell)
            assert facts(store) == before[0]
            store.save_job(JOB)
            store.set_aside("b" * 64, Reason.HANG)
            assert (state / "state.json").read_bytes() == before[1]


def shell_end(shell: sqlite3.Connection) -> None:
    """Let go of someone's read lock."""
    shell.execute("ROLLBACK")
    shell.close()


def leave_hot_journal(path: Path) -> None:
    """Die in the middle of a transaction, as far as its file can tell."""
    connection = sqlite3.connect(path, isolation_level=None)
    # Pages go to the file before COMMIT when the cache is too small for them.
    connection.execute("PRAGMA cache_size=1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE floors SET version = 0")
    for number in range(20):
        connection.execute("INSERT INTO notes VALUES (?, ?)", (number, bytes(9000)))
    journal = path.with_name("state.db-journal")
    torn = path.read_bytes(), journal.read_bytes()
    connection.close()
    path.write_bytes(torn[0])
    journal.write_bytes(torn[1])


class TestSchemas:
    """Forward in one transaction each; a newer one is left alone."""

    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        """Give a state directory of schema 1, with the models it names."""
        old = tmp_path / "old"
        with opened(tmp_path / "other") as store:
            for version in (6, 7):
                bring_in(store, version)
        old.mkdir(mode=0o700)
        shutil.copytree(tmp_path / "other" / "obj", old / "obj")
        (old / "state.db").write_bytes(schema_1())
        return old

    def test_71_schema_1_comes_along(self, old: Path) -> None:
        """Everything an older agent kept is there, and what is new is empty."""
        with opened(old) as store:
            seven, six = installed(7), installed(6)
            at = 1_790_000_000.5
            seven, six = replace(seven, verified_at=at), replace(six, verified_at=at)
            assert store.slots("door") == Slots(seven, six)
            assert store.slots("window") == Slots(seven)
            assert store.version_floor("kws") == 7
            assert store.all_set_aside() == [
                SetAside("c" * 64, "hang"),
                SetAside("b" * 64, "golden"),
            ]
            assert store.load_note("trust.floors.0011223344556677") is not None
            assert store.board_id() == BOARD
            job = store.load_job()
            assert job is not None
            assert (job.phase, job.version, job.id) == (Phase.COMMITTING, 8, 0)
            assert (store.reports(), store.holds()) == ([], [])
            assert store.next_update_id() == 1
            assert check_whole(store) == 7

    def test_71_schema_1_is_migrated_once(self, old: Path) -> None:
        """The second start writes nothing, and the copy outlives the file."""
        with opened(old) as store:
            before = facts(store)
        file = (old / "state.db").stat().st_mtime_ns
        assert known(old) == before
        assert (old / "state.db").stat().st_mtime_ns == file
        (old / "state.db").write_bytes(b"damage")
        assert known(old) == before

    def test_71_a_full_disk_stops_no_migrated_board(self, old: Path) -> None:
        """Migrated, but not copied: the models are there all the same."""
        (old / "part").mkdir(mode=0o700)
        disk = SteppedDisk()
        disk.before = fail_at(1, errno.ENOSPC, ever_after=True)
        with opened(old, disk) as store:
            assert check_whole(store) == 7
        assert known(old)[2] == 7

    def test_71_a_newer_schema_is_refused(self, state: Path) -> None:
        """A newer agent's file is not touched, nor replaced by the older copy."""
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
            connection.execute("UPDATE seal SET schema = schema + 1, sha256 = 'x'")
        connection.close()
        before = sorted((found.name, found.stat().st_size) for found in state.iterdir())
        error = refusal(state)
        assert f"has schema {SCHEMA + 1}; this agent knows {SCHEMA}" in str(error)
        assert "newer agent" in error.todo
        after = sorted((found.name, found.stat().st_size) for found in state.iterdir())
        assert after == before

    @pytest.mark.parametrize(
        "change",
        [
            "DROP TABLE seal",
            "ALTER TABLE seal RENAME COLUMN schema TO kind",
            "DELETE FROM seal",
            "ALTER TABLE notes ADD COLUMN at REAL",
            "DELETE FROM floors",
        ],
    )
    def test_71_a_newer_schema_is_refused_whatever_its_seal(
        self, state: Path, change: str
    ) -> None:
        """A newer agent may seal in another way, or not at all: its floors stay."""
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
            connection.execute(change)
        connection.close()
        error = refusal(state)
        assert "newer agent" in error.todo
        assert not list(state.glob("state.db.damaged-*"))

    @pytest.mark.parametrize("bit", range(8))
    def test_71_a_flipped_bit_in_the_number_locks_nobody_out(
        self, state: Path, bit: int
    ) -> None:
        """Where the seal proves everything else, the number alone is damaged."""
        expected = known(state)
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute(f"PRAGMA user_version={SCHEMA ^ 1 << bit}")
        connection.close()
        assert known(state) == expected

    def test_71_a_newer_copy_is_not_believed(self, state: Path) -> None:
        """A damaged file whose copy is of a newer agent is refused, not guessed."""
        copy = state / "state.json"
        envelope = msgspec.json.decode(copy.read_bytes(), type=Envelope)
        kept = parse_kept(bytes(envelope.content))
        newer = msgspec.json.encode(Kept(SCHEMA + 1, kept.layout, kept.tables))
        copy.write_bytes(
            msgspec.json.encode(Envelope(digest_of(newer), msgspec.Raw(newer)))
        )
        (state / "state.db").write_bytes(b"damage")
        assert "newer agent" in str(refusal(state))
