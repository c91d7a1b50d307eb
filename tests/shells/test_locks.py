"""The worker's locks: each layer refuses what it is there for, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent.worker.locks import FORBIDDEN_CALLS, FORBIDDEN_NUMBERS

CHILD = Path(__file__).parent.parent / "fakes" / "locked_child.py"
LAYERS = {
    *("parent", "no_new_privs", "no_core", "no_trace"),
    *("seccomp", "landlock", "mdwe"),
}
# attempt -> (the layer that refuses it, how)
REFUSED = {
    "exec": ("seccomp", "EPERM"),
    "inet": ("seccomp", "EPERM"),
    "inet6": ("seccomp", "EPERM"),
    "connect": ("seccomp", "EPERM"),
    "bind": ("seccomp", "EPERM"),
    "netlink": ("seccomp", "EPERM"),
    "ptrace": ("seccomp", "EPERM"),
    "unshare": ("seccomp", "EPERM"),
    "clone_user": ("seccomp", "EPERM"),
    "clone_net": ("seccomp", "EPERM"),
    "clone3": ("seccomp", "ENOSYS"),
    "bpf": ("seccomp", "EPERM"),
    "io_uring": ("seccomp", "EPERM"),
    "mount": ("seccomp", "EPERM"),
    "fork": ("seccomp", "EPERM"),
    "clone_process": ("seccomp", "EPERM"),
    "spawn": ("seccomp", "EPERM"),
    "limit_itself": ("seccomp", "EPERM"),
    "limit_parent": ("seccomp", "EPERM"),
    "signal_parent": ("seccomp", "EPERM"),
    "read": ("landlock", "EACCES"),
    "list": ("landlock", "EACCES"),
    "parents_environment": ("landlock", "EACCES"),
    "write": ("landlock", "EACCES"),
    "remove": ("landlock", "EACCES"),
    "make_folder": ("landlock", "EACCES"),
    "write_readable": ("landlock", "EACCES"),
    "map_executable": ("mdwe", "EACCES"),
    "make_executable": ("mdwe", "EACCES"),
}
ALLOWED = (
    *("thread", "pair", "read_readable", "read_cpuinfo", "import"),
    *("read_limit", "signal_thread", "read_own_status"),
)
LOCK_IN = "import os; from agent.worker.locks import lock_in; "
# A kernel without Landlock and MDWE, as far as this process can tell.
OLD_KERNEL = """
import errno, json, os, pyseccomp as s
rules = s.SyscallFilter(s.ALLOW)
rules.add_rule(s.ERRNO(errno.EINVAL), "prctl", s.Arg(0, s.EQ, 65))
rules.add_rule(s.ERRNO(errno.ENOSYS), "landlock_create_ruleset")
rules.load()
from agent.worker.locks import lock_in
print(json.dumps(lock_in(os.getppid(), [])))
"""
NO_LIBRARIES = """
import json, os, sys
sys.modules["pyseccomp"] = sys.modules["landlockpy"] = None
from agent.worker.locks import lock_in
print(json.dumps(lock_in(os.getppid(), [])))
"""
# The parent starts a child that locks in, and says which one it is.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-I", "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True
)
print(child.pid, child.stdout.readline().strip(), flush=True)
time.sleep(600)
"""
SLEEPER = LOCK_IN + (
    "print(lock_in(os.getppid(), [])['parent'] or 'locked', flush=True); "
    "import time; time.sleep(600)"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what a locked process reports about its attempts."""
    outside = tmp_path_factory.mktemp("outside")
    readable = tmp_path_factory.mktemp("readable")
    (outside / "secret").write_bytes(b"key")
    (readable / "sample").write_bytes(b"1")
    done = subprocess.run(
        [sys.executable, "-I", CHILD, outside, readable],
        capture_output=True,
        check=True,
        timeout=60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run a few lines in a process of their own."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_gone(pid: int) -> bool:
    """Whether a process has ended, its entry perhaps waiting for someone to look."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_every_layer_is_reported(report: dict[str, Any]) -> None:
    """The report names all layers, whether they hold or not."""
    assert set(report["layers"]) == LAYERS


@pytest.mark.parametrize("layer", sorted(LAYERS - {"landlock", "mdwe"}))
def test_layers_of_every_kernel_hold(report: dict[str, Any], layer: str) -> None:
    """What any supported kernel has holds everywhere."""
    assert report["layers"][layer] == ""


@pytest.mark.parametrize("attempt", sorted(REFUSED))
def test_refuses(report: dict[str, Any], attempt: str) -> None:
    """What a data plane never does fails, with the error of its layer."""
    layer, expected = REFUSED[attempt]
    if report["layers"][layer]:
        pytest.skip(f"this kernel has no {layer}: {report['layers'][layer]}")
    assert report["tried"][attempt] == expected


@pytest.mark.parametrize("call", [*FORBIDDEN_CALLS, *FORBIDDEN_NUMBERS])
def test_refuses_each_call(report: dict[str, Any], call: str) -> None:
    """Every call of the table is refused, whatever its arguments."""
    if call not in report["calls"]:
        pytest.skip("this architecture has no such call")
    assert report["calls"][call] == "EPERM"


def test_aborts() -> None:
    """A runtime that gives up still ends the process by the signal of abort()."""
    done = run(LOCK_IN + "lock_in(os.getppid(), []); os.abort()")
    assert done.returncode == -signal.SIGABRT


@pytest.mark.parametrize("attempt", ALLOWED)
def test_allows(report: dict[str, Any], attempt: str) -> None:
    """What a data plane needs still works."""
    assert report["tried"][attempt] == "allowed"


def test_no_core_file(report: dict[str, Any]) -> None:
    """A crash never writes the model in memory to a disk."""
    assert report["core"] == [0, 0]


def test_no_new_privileges(report: dict[str, Any]) -> None:
    """The kernel says so itself."""
    assert "NoNewPrivs:\t1" in report["status"]


def test_an_old_kernel_is_reported_not_fatal() -> None:
    """Layers that the kernel lacks say why; the others hold."""
    done = run(OLD_KERNEL)
    layers = json.loads(done.stdout)
    lacking = {name for name, why in layers.items() if why}
    assert lacking == {"landlock", "mdwe"}, done.stderr


def test_missing_libraries_are_reported_not_fatal() -> None:
    """Layers whose library is not installed say so; the others hold."""
    done = run(NO_LIBRARIES)
    layers = json.loads(done.stdout)
    assert "pyseccomp" in layers["seccomp"]
    assert "landlockpy" in layers["landlock"]
    assert layers["parent"] == layers["no_core"] == layers["no_new_privs"] == ""


def test_a_parent_that_died_first_is_noticed() -> None:
    """A worker whose daemon died before it was ready ends by itself."""
    done = run(LOCK_IN + "lock_in(1 if os.getppid() != 1 else 2, []); print('lived')")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the daemon died" in done.stderr


def test_dies_with_its_parent() -> None:
    """kill -9 of the parent ends the child, which had no chance to notice."""
    parent = subprocess.Popen(
        [sys.executable, "-I", "-c", PARENT, SLEEPER], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child, said = parent.stdout.readline().split()
        alive_before = not is_gone(int(child))
        os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not is_gone(int(child)) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (said, alive_before, is_gone(int(child))) == ("locked", True, True)
