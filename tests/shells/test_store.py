"""The real store: its files, its lock, and what it says about a state gone wrong."""

import errno
import hashlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from agent.store import Store
from agent.store.schema import SCHEMA
from tests.fakes.disks import SteppedDisk, fail_at
from tests.fakes.stored import bring_in, check_whole, content, installed, list_files

NOBODY = 65534


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give the path of a state directory that does not exist yet."""
    return tmp_path / "var" / "state"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    """Give an open store with version 1 active."""
    opened = Store.open(state)
    bring_in(opened, 1)
    yield opened
    opened.close()


def modes(state: Path) -> dict[str, str]:
    """Return name -> permissions of everything in a state directory."""
    paths = [state, *state.rglob("*")]
    return {
        str(path.relative_to(state)): oct(stat.S_IMODE(path.lstat().st_mode))
        for path in paths
    }


def refusal(state: Path) -> DeviceError:
    """Return why a state directory cannot be opened."""
    with pytest.raises(DeviceError) as caught:
        Store.open(state).close()
    return caught.value


class TestFiles:
    """What lies on the disk."""

    def test_everything_is_private(self, store: Store, state: Path) -> None:
        """Directories are 0700, the database 0600, objects 0400 and read-only."""
        sha256 = installed(1).sha256
        assert modes(state) == {
            ".": "0o700",
            "lock": "0o600",
            "state.db": "0o600",
            "state.json": "0o600",
            "obj": "0o700",
            "part": "0o700",
            f"obj/{sha256}": "0o400",
        }
        assert store.open_object(sha256).readonly

    def test_an_open_directory_is_closed(self, state: Path) -> None:
        """A state directory that others may enter is made private."""
        state.mkdir(parents=True, mode=0o755)
        Store.open(state).close()
        assert modes(state)["."] == "0o700"

    def test_everything_comes_back(self, store: Store, state: Path) -> None:
        """After closing and opening, slots, floors, notes and names are the same."""
        model = bring_in(store, 2)
        store.save_note("floor", b"7")
        store.set_aside("f" * 64, Reason.CRASH)
        name, slots = store.board_id(), store.slots("door")
        store.close()
        store.close()
        again = Store.open(state)
        told = (
            again.slots("door"),
            again.version_floor("kws"),
            again.load_note("floor"),
            again.is_set_aside("f" * 64),
            again.board_id(),
        )
        assert told == (slots, 2, b"7", Reason.CRASH, name)
        assert again.open_object(model.sha256) == content(2)
        again.close()

    def test_opening_writes_nothing(self, store: Store, state: Path) -> None:
        """A start costs the flash no write but the lock's process id."""
        store.close()
        files = [state / "state.db", state / "state.json"]
        before = [file.stat().st_mtime_ns for file in files]
        Store.open(state).close()
        assert [file.stat().st_mtime_ns for file in files] == before

    def test_the_database_is_durable(self, store: Store) -> None:
        """Journal mode DELETE, synchronous EXTRA (3), and the file says whose it is."""
        database = store._database
        asked = ("journal_mode", "synchronous", "application_id", "user_version")
        told = [database.rows(f"PRAGMA {name}")[0][0] for name in asked]
        assert told == ["delete", 3, 0x546E7957, SCHEMA]

    def test_rubbish_goes_at_the_start(self, store: Store, state: Path) -> None:
        """Parts of every kind, links and pipes included, are gone after a start."""
        store.close()
        outside = state.parent / "precious"
        outside.write_text("kept")
        (state / "part" / "half").write_text("rubbish")
        (state / "part" / "link").symlink_to(outside)
        (state / "part" / "dangling").symlink_to(state / "nowhere")
        os.mkfifo(state / "part" / "pipe")
        (state / "part" / "folder").mkdir()
        Store.open(state).close()
        assert list_files(state) == [f"obj/{installed(1).sha256}", "part/folder"]
        assert outside.read_text() == "kept"

    def test_the_order_of_steps(self, state: Path) -> None:
        """Synced before it is renamed, and the names synced before commit returns."""
        disk = SteppedDisk()
        opened = Store.open(state, disk)
        disk.steps.clear()
        body = content(1)
        sha256 = hashlib.sha256(body).hexdigest()
        with opened.stage(sha256, len(body)) as staging:
            staging.write(memoryview(body))
            staging.commit()
            committed = list(disk.steps)
        opened.close()
        assert committed == [
            "remove part",
            "create part",
            "write",
            "seal",
            "sync",
            "rename part obj",
            "sync_directory obj",
            "sync_directory part",
        ]


class TestRot:
    """Bytes that changed, and things in the place of files."""

    @pytest.mark.parametrize("place", [0, 2500, 4999])
    def test_a_flipped_bit_is_found(
        self, store: Store, state: Path, place: int
    ) -> None:
        """One bit anywhere in an object: refused before anyone parses it."""
        path = state / "obj" / installed(1).sha256
        body = bytearray(content(1))
        body[place] ^= 1
        path.chmod(0o600)
        path.write_bytes(body)
        with pytest.raises(BundleRefusedError) as caught:
            store.open_object(path.name)
        assert caught.value.reason == Reason.DIGEST

    @pytest.mark.parametrize("kind", ["none", "empty", "link", "pipe", "folder"])
    def test_no_file_is_no_object(self, store: Store, state: Path, kind: str) -> None:
        """Nothing, an empty file, a link, a pipe, a folder: refused, and nothing waits.

        The way back to the model before it stays open.
        """
        bring_in(store, 2)
        path = state / "obj" / installed(2).sha256
        path.rename(state / "moved")
        if kind == "empty":
            path.touch()
        elif kind == "link":
            path.symlink_to(state / "moved")
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        with pytest.raises(BundleRefusedError) as caught:
            store.open_object(path.name)
        assert caught.value.reason == Reason.DIGEST
        assert store.fall_back("door", Reason.DIGEST) == installed(1)
        assert check_whole(store) == 1

    def test_a_planted_part_is_not_followed(self, store: Store, state: Path) -> None:
        """A link in the place of a part is replaced; what it points to is not."""
        outside = state.parent / "precious"
        outside.write_text("kept")
        (state / "part" / installed(2).sha256).symlink_to(outside)
        bring_in(store, 2)
        assert outside.read_text() == "kept"
        assert check_whole(store) == 2

    def test_a_mapping_outlives_its_object(self, store: Store) -> None:
        """What was opened stays readable after the object was collected."""
        opened = store.open_object(installed(1).sha256)
        for version in (2, 3):
            bring_in(store, version)
        assert not store.has_object(installed(1).sha256)
        assert bytes(opened) == content(1)


class TestLock:
    """One daemon at a time."""

    def test_the_second_says_who_holds_it(self, store: Store, state: Path) -> None:
        """Two daemons on one state directory: the second names the first."""
        assert store.version_floor("kws") == 1
        error = refusal(state)
        assert error.reason == Reason.LOCKED
        assert f"process {os.getpid()} (" in str(error)
        assert error.todo

    def test_another_process_is_named(self, state: Path) -> None:
        """The name is that of the process that holds the lock, wherever it runs."""
        script = (
            "import sys, pathlib; from agent.store import Store;"
            "Store.open(pathlib.Path(sys.argv[1])); print('open', flush=True);"
            "sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            assert f"process {holder.pid} (" in str(refusal(state))
            holder.send_signal(signal.SIGKILL)
        Store.open(state).close()

    def test_a_lock_without_a_name_still_holds(self, store: Store, state: Path) -> None:
        """Whatever the lock's file says, it is the kernel that knows."""
        (state / "lock").write_bytes(b"\xffnobody")
        assert store.version_floor("kws") == 1
        assert "in use by another process" in str(refusal(state))

    def test_a_failed_start_holds_nothing(self, state: Path) -> None:
        """A start that fails on the database leaves no lock behind."""
        state.mkdir(parents=True)
        (state / "state.db").write_bytes(b"no database" * 100)
        assert refusal(state).reason == Reason.STATE
        (state / "state.db").unlink()
        Store.open(state).close()

    def test_another_users_directory(self, tmp_path: Path) -> None:
        """A directory of another user is refused by name, for root too."""
        state = Path("/")
        if os.geteuid() == 0:
            state = tmp_path / "state"
            state.mkdir()
            os.chown(state, NOBODY, NOBODY)
        error = refusal(state)
        assert error.reason == Reason.PERMISSION
        assert f"{state} belongs to user" in str(error)
        assert sorted(tmp_path.rglob("*")) == ([state] if os.geteuid() == 0 else [])

    def test_no_directory_at_all(self, tmp_path: Path) -> None:
        """A file in the place of the state directory is said to be one."""
        (tmp_path / "state").touch()
        error = refusal(tmp_path / "state")
        assert error.reason == Reason.STATE
        assert "File exists" in str(error)


class TestDatabase:
    """A state.db that is not what it should be, and no copy of it either."""

    @pytest.fixture(autouse=True)
    def closed(self, store: Store, state: Path) -> None:
        """Let each test begin with a closed store of one model, whose copy is lost."""
        store.close()
        (state / "state.json").unlink()

    @pytest.mark.parametrize("keep", [0, 1, 50, 99, 100, 4096, 5000, -5000])
    def test_a_damaged_file_is_named(self, state: Path, keep: int) -> None:
        """Cut anywhere: a clear error, never a guess about what was active."""
        path = state / "state.db"
        content = path.read_bytes()[:keep]
        path.write_bytes(content)
        error = refusal(state)
        assert error.reason == Reason.STATE
        assert str(path) in str(error)
        assert "move the directory away" in error.todo

    def test_a_lost_file_is_missed(self, state: Path) -> None:
        """Models without their database: the floors are lost, and no one forgets it."""
        (state / "state.db").unlink()
        for _ in range(2):
            assert "there are models beside it" in str(refusal(state))

    def test_a_file_cut_short_at_birth_is_new(self, state: Path) -> None:
        """Power loss while the database was made, before any model: a new one."""
        (state / "obj" / installed(1).sha256).unlink()
        (state / "state.db").write_bytes(b"")
        opened = Store.open(state)
        assert opened.pipelines() == []
        opened.close()

    @pytest.mark.parametrize("page", range(1, 6))
    def test_scribbled_pages_are_found(self, state: Path, page: int) -> None:
        """integrity_check sees a page of rubbish before anyone believes a row."""
        path = state / "state.db"
        content = bytearray(path.read_bytes())
        content[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
        path.write_bytes(content)
        assert refusal(state).reason == Reason.STATE

    def test_a_newer_schema_is_left_alone(self, state: Path) -> None:
        """A database of a newer agent is not touched, and the message says so."""
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
            connection.execute("UPDATE seal SET schema = schema + 1")
        connection.close()
        before = (state / "state.db").read_bytes()
        error = refusal(state)
        assert error.reason == Reason.STATE
        assert f"has schema {SCHEMA + 1}" in str(error)
        assert (state / "state.db").read_bytes() == before

    def test_a_foreign_database_is_refused(self, state: Path) -> None:
        """Someone else's SQLite file is not migrated into ours."""
        (state / "state.db").unlink()
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute("CREATE TABLE albums (name TEXT)")
        connection.close()
        assert "not Tinyward's" in str(refusal(state))

    def test_a_link_is_not_followed(self, state: Path) -> None:
        """A state.db that is a symbolic link is refused."""
        (state / "state.db").rename(state / "elsewhere.db")
        (state / "state.db").symlink_to(state / "elsewhere.db")
        assert refusal(state).reason == Reason.STATE

    def test_a_changed_row_is_named(self, state: Path) -> None:
        """A row that SQLite likes and the seal does not: never a lower floor."""
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute("UPDATE floors SET version = 0")
        connection.close()
        assert "rows that changed" in str(refusal(state))

    def test_a_row_without_sense_is_named(self, state: Path) -> None:
        """A value that no agent wrote is an error of the state, not a crash."""
        with sqlite3.connect(state / "state.db") as connection:
            connection.execute("UPDATE slots SET active = x'7b7d'")
            connection.execute("UPDATE seal SET sha256 = ''")
        connection.close()
        opened = Store.open(state)
        with pytest.raises(DeviceError, match="Installed that makes no sense"):
            opened.slots("door")
        opened.close()

    def test_someones_shell_is_in_the_way(self, state: Path) -> None:
        """A database that another process keeps locked is reported, not waited for."""
        opened = Store.open(state)
        shell = sqlite3.connect(state / "state.db", isolation_level=None)
        shell.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DeviceError) as caught:
            opened.save_note("a", b"1")
        assert caught.value.reason == Reason.LOCKED
        shell.execute("ROLLBACK")
        shell.close()
        opened.save_note("a", b"1")
        opened.close()

    def test_threads_do_not_meet(self, state: Path) -> None:
        """Notes saved by threads all arrive, in the middle of no one's transaction."""
        opened = Store.open(state)

        def save(name: str) -> None:
            for number in range(10):
                opened.save_note(f"{name}.{number}", name.encode())

        threads = [threading.Thread(target=save, args=(n,)) for n in ("a", "b", "c")]
        for thread in threads:
            thread.start()
        for version in range(2, 8):
            opened.commit("door", installed(version))
        for thread in threads:
            thread.join()
        notes = [opened.load_note(f"{n}.{i}") for n in "abc" for i in range(10)]
        assert notes == [name.encode() for name in "abc" for _ in range(10)]
        assert opened.version_floor("kws") == 7
        opened.close()


def count_steps(state: Path) -> int:
    """Return how many steps bringing in version 2 takes."""
    disk = SteppedDisk()
    opened = Store.open(state, disk)
    bring_in(opened, 1)
    before = len(disk.steps)
    bring_in(opened, 2)
    opened.close()
    return len(disk.steps) - before


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("ever_after", [False, True])
def test_errors_at_every_step(tmp_path: Path, error: int, *, ever_after: bool) -> None:
    """Whichever step fails: a DeviceError, the old model whole, and the next try works.

    Steps after the rename may fail too late to stop the object, but not the commit.
    """
    steps = count_steps(tmp_path / "count")
    reasons = set()
    for number in range(1, steps + 1):
        state = tmp_path / str(number)
        disk = SteppedDisk()
        opened = Store.open(state, disk)
        bring_in(opened, 1)
        disk.before = fail_at(len(disk.steps) + number, error, ever_after=ever_after)
        try:
            bring_in(opened, 2)
        except DeviceError as err:
            reasons.add(err.reason)
        assert check_whole(opened) in {1, 2}
        disk.before = lambda _number: None
        bring_in(opened, 2)
        assert check_whole(opened) == 2
        opened.close()
    expected = {
        errno.ENOSPC: Reason.DISK_FULL,
        errno.EDQUOT: Reason.DISK_FULL,
        errno.EROFS: Reason.READ_ONLY,
        errno.EIO: Reason.STATE,
    }
    assert reasons == {expected[error]}
