"""What the service manager is told, over real sockets, whoever listens or does not."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from agent.board.notify import MAX_STATUS_CHARS, OWED, Notifier
from tests.fakes.service_socket import ServiceSocket

MESSAGES: list[tuple[Callable[[Notifier], None], str]] = [
    (Notifier.ready, "READY=1"),
    (Notifier.stopping, "STOPPING=1"),
    (Notifier.beat, "WATCHDOG=1"),
    (lambda it: it.extend(1.5), "EXTEND_TIMEOUT_USEC=1500000"),
    (lambda it: it.status("kws 8, 312/s"), "STATUS=kws 8, 312/s"),
]
# Runs a loop that beats like the daemon's, and then blocks it for ever.
BLOCKED = """
import asyncio, os, sys, time
from agent.board.notify import Notifier
from agent.lifeline import Lifeline

async def run():
    notify = Notifier.take(os.environ, os.getpid())
    asyncio.get_running_loop().call_later(0.3, block)
    await Lifeline(notify, lambda: "").run()

def block():
    print("blocked", flush=True)
    while True:
        time.sleep(0.01)

asyncio.run(run())
"""
PERIOD_S = 0.3


class MakeNotifier(Protocol):
    """Makes a notifier whose socket is closed after the test."""

    def __call__(self, address: str, watchdog_s: float = 0.0) -> Notifier:
        """Return it."""


@pytest.fixture
def notifier_to() -> Iterator[MakeNotifier]:
    """Give a maker of notifiers."""
    made: list[Notifier] = []

    def make(address: str, watchdog_s: float = 0.0) -> Notifier:
        made.append(Notifier(address, watchdog_s))
        return made[-1]

    yield make
    for notifier in made:
        notifier.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceSocket]:
    """Give a listening socket."""
    with ServiceSocket(tmp_path / "notify") as manager:
        yield manager


@pytest.mark.parametrize(("tell", "message"), MESSAGES)
def test_each_message_is_one_datagram(
    notifier_to: MakeNotifier,
    manager: ServiceSocket,
    tell: Callable[[Notifier], None],
    message: str,
) -> None:
    """As sd_notify(3) spells it."""
    tell(notifier_to(manager.address))
    assert manager.read() == [message]


def test_an_abstract_name(
    notifier_to: MakeNotifier,
) -> None:
    """``@name`` is an address without a file."""
    with ServiceSocket(f"@tinyward-test-{os.getpid()}") as manager:
        notifier_to(manager.address).ready()
        assert manager.read() == ["READY=1"]


def test_a_reload_says_when_it_began(
    notifier_to: MakeNotifier, manager: ServiceSocket
) -> None:
    """In microseconds of CLOCK_MONOTONIC, which systemd compares with its signal."""
    before_ns = time.monotonic_ns()
    notifier_to(manager.address).reloading()
    after_ns = time.monotonic_ns()
    (said,) = manager.read()
    first, second = said.splitlines()
    key, _, usec = second.partition("=")
    assert (first, key) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before_ns // 1000 <= int(usec) <= after_ns // 1000


@pytest.mark.parametrize(
    "address",
    ["", "relative", "vsock:2:1", "/nowhere/notify", "/" + 200 * "x", "@", "/a\0b"],
)
def test_nobody_listens(notifier_to: MakeNotifier, address: str) -> None:
    """Nothing is raised, whatever the address is."""
    notifier = notifier_to(address, 1.0)
    for tell, _ in MESSAGES:
        tell(notifier)
    assert notifier.listened == (address[:1] in ("/", "@"))


def test_a_status_is_one_line(
    notifier_to: MakeNotifier, manager: ServiceSocket
) -> None:
    """A line break in it cannot say READY in somebody else's name."""
    notifier_to(manager.address).status("a\nREADY=1\x00\x1b[0m" + "x" * 5000)
    (said,) = manager.read()
    assert said.startswith("STATUS=a READY=1  [0mx")
    assert "\n" not in said
    assert len(said) == len("STATUS=") + MAX_STATUS_CHARS


def fill(notifier: Notifier) -> None:
    """Send until the kernel takes no more of it (net.unix.max_dgram_qlen)."""
    for _ in range(5000):
        notifier.status("x" * 900)


def test_a_full_socket_is_not_waited_for(
    notifier_to: MakeNotifier, manager: ServiceSocket
) -> None:
    """Lines for people are dropped; what changes the unit's state comes later."""
    notifier = notifier_to(manager.address)
    fill(notifier)
    notifier.ready()
    notifier.beat()
    assert {it[:7] for it in manager.read()} == {"STATUS="}
    manager.said.clear()
    notifier.beat()
    assert manager.read() == ["READY=1", "WATCHDOG=1"]


def test_what_is_owed_does_not_grow(
    notifier_to: MakeNotifier, manager: ServiceSocket
) -> None:
    """A socket that stays full costs a few datagrams of memory."""
    notifier = notifier_to(manager.address)
    fill(notifier)
    for _ in range(100):
        notifier.reloading()
        notifier.ready()
    manager.read()
    manager.said.clear()
    notifier.beat()
    assert len(manager.read()) == OWED + 1  # the beat was never owed
    assert manager.said[-2:] == ["READY=1", "WATCHDOG=1"]


def test_what_is_not_owed_pushes_nothing_out(
    notifier_to: MakeNotifier, manager: ServiceSocket
) -> None:
    """Beats and lines that a full socket does not take leave the oldest READY alone."""
    notifier = notifier_to(manager.address)
    fill(notifier)
    notifier.ready()
    for _ in range(OWED - 1):
        notifier.extend(1.0)
    for _ in range(3):
        notifier.beat()
        notifier.status("well")
    manager.read()
    manager.said.clear()
    notifier.beat()
    assert manager.read() == [
        "READY=1",
        *["EXTEND_TIMEOUT_USEC=1000000"] * (OWED - 1),
        "WATCHDOG=1",
    ]


def test_whoever_listens_anew_is_heard(
    notifier_to: MakeNotifier, tmp_path: Path
) -> None:
    """The socket is an address, not a connection."""
    notifier = notifier_to(str(tmp_path / "notify"))
    with ServiceSocket(tmp_path / "notify") as first:
        notifier.beat()
        assert first.read() == ["WATCHDOG=1"]
    (tmp_path / "notify").unlink()
    notifier.ready()
    with ServiceSocket(tmp_path / "notify") as second:
        notifier.beat()
        assert second.read() == ["READY=1", "WATCHDOG=1"]


def test_children_get_nothing_of_it() -> None:
    """The variables are taken out of the environment; the others stay."""
    environment = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "20000000",
        "WATCHDOG_PID": "7",
        "PATH": "/bin",
    }
    notifier = Notifier.take(environment, 7)
    assert environment == {"PATH": "/bin"}
    assert (notifier.listened, notifier.watchdog_s) == (True, 20.0)


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("3000000", "", 3.0),
        ("3000000", "7", 3.0),
        ("3000000", "8", 0.0),  # another process's, as sd_watchdog_enabled(3) says
        ("", "7", 0.0),
        ("0", "7", 0.0),
        ("-1", "7", 0.0),
        ("soon", "7", 0.0),
        ("٣", "7", 0.0),
    ],
)
def test_the_watchdogs_period(usec: str, pid: str, seconds: float) -> None:
    """Seconds, where it is ours and a number."""
    given = {"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert Notifier.take(given, 7).watchdog_s == seconds


def test_without_a_socket_there_is_no_watchdog() -> None:
    """Nobody would hear it."""
    assert Notifier.take({"WATCHDOG_USEC": "1000000"}, 7).watchdog_s == 0.0


def test_a_blocked_loop_beats_no_more(manager: ServiceSocket) -> None:
    """The beat comes from the loop itself: no thread says that a stuck one is well."""
    variables = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": str(int(PERIOD_S * 1e6)),
    }
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKED],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"blocked\n"
            beats = manager.count("WATCHDOG=1")
            assert beats >= 1
            time.sleep(3 * PERIOD_S)  # nine beats, if it still did
            assert manager.count("WATCHDOG=1") == beats
        finally:
            child.kill()


def test_the_descriptor_is_not_inherited(
    notifier_to: MakeNotifier, manager: ServiceSocket
) -> None:
    """A program that is started cannot speak over it."""
    notifier = notifier_to(manager.address)
    notifier.beat()
    assert isinstance(notifier._socket, socket.socket)
    assert notifier._socket.get_inheritable() is False
