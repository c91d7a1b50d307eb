"""A process of its own that drives a store, for tests that kill it or starve it.

``python -m tests.shells.store_driver WHAT DIRECTORY [SEED]`` prints one JSON object.
"""

import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from agent.core.installed import Installed
from agent.core.update_machine import Job
from agent.errors import DeviceError
from agent.store import Inbox, Store
from tests.fakes.disks import SteppedDisk, kill_at
from tests.fakes.stored import bring_in, check_whole, installed, list_files

JOB = Job(pipeline="door", model="kws", version=2, sha256="a" * 64)
KILLS = 40  # random moments; one takes about 30 ms
BIG = 400_000  # bytes of a bundle that the full disks of these tests cannot hold


def reason_of(call: Callable[[], object]) -> str:
    """Return why a call fails, or an empty string."""
    try:
        call()
    except DeviceError as err:
        return str(err.reason)
    return ""


def fill(directory: Path) -> Path:
    """Write until the file system has no block left."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return path


def full_disk(directory: Path, _seed: int) -> dict[str, object]:
    """Run out of real blocks: while staging, while saving, and at the first start."""
    state = directory / "state"
    store = Store.open(state)
    bring_in(store, 1)
    told = {"stage": reason_of(lambda: bring_in(store, 2, BIG))}
    filler = fill(directory)
    told["stage_small"] = reason_of(lambda: bring_in(store, 3))
    told["save"] = reason_of(lambda: store.save_note("key", bytes(50_000)))
    told["commit"] = reason_of(lambda: store.commit("other", store_active(store)))
    told["first_start"] = reason_of(lambda: Store.open(directory / "second"))
    active = [check_whole(store)]
    store.close()
    store = Store.open(state)
    active.append(check_whole(store))
    files = len(list_files(state))
    filler.unlink()
    bring_in(store, 4)
    active.append(check_whole(store))
    return {
        "told": told,
        "active": active,
        "files": files,
        "floor": store.version_floor("kws"),
    }


def store_active(store: Store) -> Installed:
    """Return the active model with a variant name that takes many pages."""
    active = store.slots("door").active
    assert active is not None
    return replace(active, variant="x" * 50_000)


def file_limit(directory: Path, _seed: int) -> dict[str, object]:
    """Meet RLIMIT_FSIZE, as a quota would have it."""
    store = Store.open(directory / "state")
    bring_in(store, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    told = reason_of(lambda: bring_in(store, 2, BIG))
    return {"told": told, "active": check_whole(store)}


def no_descriptors(directory: Path, _seed: int) -> dict[str, object]:
    """Run out of file descriptors: at each change, and at a start."""
    store = Store.open(directory / "state")
    bring_in(store, 1)
    inbox = Inbox(directory / "state", 100_000)
    staging = store.stage(installed(2).sha256, 5000)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    used = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(used)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
    told = {
        "stage": reason_of(lambda: store.stage("c" * 64, 10)),
        "open": reason_of(lambda: store.open_object(installed(1).sha256)),
        "save": reason_of(lambda: store.save_job(JOB)),
        "note": reason_of(lambda: store.save_note("key", b"1")),
        "upload": reason_of(lambda: inbox.append("c" * 64, 10, 0, b"1")),
        "second_start": reason_of(lambda: Store.open(directory / "second")),
    }
    for descriptor in taken:
        os.close(descriptor)
    staging.close()
    store.save_note("key", b"1")
    bring_in(store, 2)
    return {"told": told, "active": check_whole(store)}


def no_inodes(directory: Path, _seed: int) -> dict[str, object]:
    """Run out of inodes, with blocks to spare."""
    store = Store.open(directory / "state")
    bring_in(store, 1)
    inbox = Inbox(directory / "state", 100_000)
    filler = []
    try:
        for number in range(10_000):
            filler.append(directory / str(number))
            filler[-1].touch()
    except OSError:
        filler.pop()
    told = {
        "stage": reason_of(lambda: bring_in(store, 2)),
        "save": reason_of(lambda: store.save_job(JOB)),
        "note": reason_of(lambda: store.save_note("key", b"1")),
        "upload": reason_of(lambda: inbox.append("c" * 64, 10, 0, b"1")),
        "first_start": reason_of(lambda: Store.open(directory / "second")),
    }
    active = [check_whole(store)]
    for path in filler:
        path.unlink()
    bring_in(store, 2)
    return {"told": told, "active": [*active, check_whole(store)]}


def read_only(directory: Path, _seed: int) -> dict[str, object]:
    """Start on a file system that is mounted read-only."""
    return {"told": reason_of(lambda: Store.open(directory / "state"))}


def kill_steps(directory: Path, _seed: int) -> dict[str, object]:
    """Die after every step of staging and collecting, and look at what is left."""
    outcomes: list[int] = []
    for number in range(1, 100):
        state = directory / str(number)
        disk = SteppedDisk()
        store = Store.open(state, disk)
        bring_in(store, 1)
        bring_in(store, 2)
        store.close()
        if not die(partial(update, state, disk_dying_at(number), 3)):
            break
        outcomes.append(look(state, at_least=2))
    return {"outcomes": outcomes}


def kill_statements(directory: Path, _seed: int) -> dict[str, object]:
    """Die before every SQL statement of an update, and look at what is left."""
    outcomes: list[int] = []
    for number in range(1, 200):
        state = directory / str(number)
        store = Store.open(state)
        bring_in(store, 1)
        store.close()

        def doomed(state: Path = state, number: int = number) -> None:
            store = Store.open(state)
            seen = 0

            def trace(_statement: str) -> None:
                nonlocal seen
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

            store._database._connection.set_trace_callback(trace)
            bring_in(store, 2)

        if not die(doomed):
            break
        outcomes.append(look(state, at_least=1))
    return {"outcomes": outcomes}


def kill_anywhere(directory: Path, seed: int) -> dict[str, object]:
    """Die at random moments of one update after the other."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    state = directory / "state"
    store = Store.open(state)
    bring_in(store, 1)
    store.close()
    version, lives = 1, 0
    for _ in range(KILLS):
        told = os.memfd_create("told")
        began = os.pipe()
        child = os.fork()
        if child == 0:
            go_on(state, version, told, began[1])
        os.close(began[1])
        os.read(began[0], 1)
        os.close(began[0])
        signal.sigtimedwait([], chance.uniform(0, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        promised = os.fstat(told).st_size
        os.close(told)
        version = look(state, at_least=version + promised)
        lives += 1
    return {"lives": lives, "version": version}


def go_on(state: Path, version: int, told: int, began: int) -> None:
    """Bring in one version after the other; write a byte for each that is durable."""
    store = Store.open(state)
    os.write(began, b".")
    while True:
        version += 1
        bring_in(store, version)
        os.write(told, b".")


def disk_dying_at(number: int) -> SteppedDisk:
    """Return a disk that kills its process after one step, counted from now on."""
    disk = SteppedDisk()
    disk.after = kill_at(number)
    return disk


def update(state: Path, disk: SteppedDisk, version: int) -> None:
    """Open a store and bring in a version."""
    bring_in(Store.open(state, disk), version)


def die(doomed: Callable[[], None]) -> bool:
    """Return whether a child that does this is killed, or else ends well."""
    child = os.fork()
    if child == 0:
        doomed()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def look(state: Path, at_least: int) -> int:
    """Start again: all is whole, nothing fell, no rubbish; return what is active."""
    store = Store.open(state)
    active = check_whole(store)
    assert active >= at_least
    assert store.version_floor("kws") == active
    store.collect()
    slots = store.slots("door")
    kept = {model.sha256 for model in (slots.active, slots.previous) if model}
    assert list_files(state) == sorted(f"obj/{sha256}" for sha256 in kept)
    bring_in(store, active + 1)
    assert check_whole(store) == active + 1
    store.close()
    return active + 1


def main() -> None:
    """Do what the command line says."""
    what = {
        "full_disk": full_disk,
        "file_limit": file_limit,
        "read_only": read_only,
        "no_descriptors": no_descriptors,
        "no_inodes": no_inodes,
        "kill_steps": kill_steps,
        "kill_statements": kill_statements,
        "kill_anywhere": kill_anywhere,
    }[sys.argv[1]]
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    sys.stdout.write(json.dumps(what(Path(sys.argv[2]), seed)))


if __name__ == "__main__":
    main()
