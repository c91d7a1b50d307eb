"""A child that misbehaves: ``rogue_child.py BEHAVIOUR MODE CONTROL PARENT ...``.

It greets like a real one, takes its order, and then does what BEHAVIOUR says.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from agent.core.messages import (
    MAX_MESSAGE_BYTES,
    Anchored,
    Examine,
    Examined,
    Examining,
    Finding,
    Loaded,
    Message,
    Ready,
    Shadowed,
    Swapped,
    Watched,
    parse_to_child,
    render_message,
)
from agent.core.watching import Monitored
from agent.worker.runtimes import available_engines

FOREVER_S = 600


class Rogue:
    """The child's end of the socket, and what it may do with it."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._order = b""

    def say(self, message: Message) -> None:
        """Send a message."""
        self._socket.send(render_message(message))

    def send(self, record: bytes) -> None:
        """Send a record as it is."""
        self._socket.send(record)

    def greet(self) -> None:
        """Say Ready and take the first order, like a real child."""
        # One runtime, so that plans are the same wherever the tests run.
        engines = dict(list(available_engines().items())[:1])
        self.say(Ready(os.getpid(), {}, 0, engines))
        self._order, *_ = socket.recv_fds(self._socket, MAX_MESSAGE_BYTES, 32)

    # --- behaviours

    def nonsense(self) -> None:
        """Send what is no message, at once."""
        self.send(b"\xff" * 16)

    def late_nonsense(self) -> None:
        """Send what is no message, after a good start."""
        self.greet()
        self.send(b"\x00nonsense")

    def stranger(self) -> None:
        """Send a message that only other children send, with values of no sense."""
        self.greet()
        self.say(Examining(2**40, "load"))

    def huge(self) -> None:
        """Send more than one record may have."""
        self.greet()
        self.send(b"\x91" * (MAX_MESSAGE_BYTES + 100))

    def late_answers(self) -> None:
        """Answer for other generations than were asked for, and never again."""
        self.greet()
        for generation in range(900, 910):
            self.say(Loaded(generation, 0.0))
            self.say(Swapped(generation, 1, 0))

    def wild(self) -> None:
        """Report about pairs that nobody asked for."""
        self.greet()
        self.say(Examining(99, "load"))
        self.say(Finding(99))
        self.say(Finding(-1))

    def no_findings(self) -> None:
        """Claim to have examined everything."""
        self.greet()
        self.say(Examined())
        sys.exit(0)

    def impossible(self) -> None:
        """Report durations that no clock can measure."""
        self.greet()
        for index in range(32):
            self.say(Finding(index, p50_ms=float("nan"), p95_ms=-1.0))
        self.say(Examined())

    def segfault(self) -> None:
        """Die as a damaged model makes one die."""
        self.greet()
        self.say(Examining(0, "golden"))
        os.kill(os.getpid(), signal.SIGSEGV)

    def segfault_once(self) -> None:
        """Die of the first of several pairs; find out about a single one."""
        self.greet()
        order = parse_to_child(self._order)
        if isinstance(order, Examine) and len(order.plan) > 1:
            self.say(Examining(0, "golden"))
            os.kill(os.getpid(), signal.SIGSEGV)
        self.say(Examining(0, "golden"))
        self.say(Finding(0, p50_ms=1.0, p95_ms=1.0))
        self.say(Examined())

    def starved(self) -> None:
        """Die as the kernel's memory killer makes one die."""
        self.greet()
        self.say(Examining(0, "load"))
        os.kill(os.getpid(), signal.SIGKILL)

    def alarmed(self) -> None:
        """Die by its own deadline."""
        self.greet()
        self.say(Examining(0, "time"))
        os.kill(os.getpid(), signal.SIGALRM)

    def confused(self) -> None:
        """Close the socket long before it ends, with an error of Python's."""
        self.greet()
        self._socket.close()
        time.sleep(0.2)
        sys.exit(1)

    def leave_a_grandchild(self) -> None:
        """Say a little, then die; a process it started keeps the socket."""
        self.greet()
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(FOREVER_S)
            os._exit(0)
        sys.stderr.write(f"{grandchild}\n")
        sys.stderr.flush()
        self.say(Loaded(1, 0.0))
        self.say(Loaded(2, 0.0))
        os.kill(os.getpid(), signal.SIGSEGV)

    def deaf(self) -> None:
        """Never read what it is sent."""
        self.say(Ready(os.getpid(), {}, 0, {}))

    def slow_to_listen(self) -> None:
        """Read after a while, answer every order, and end."""
        self.say(Ready(os.getpid(), {}, 0, {}))
        time.sleep(0.5)
        for number in range(4):
            socket.recv_fds(self._socket, MAX_MESSAGE_BYTES, 32)
            self.say(Loaded(number, 0.0))
        sys.exit(0)

    def chatter(self) -> None:
        """Fill standard error."""
        lines = b"not important\n" * 1000
        while True:
            os.write(2, lines)

    def flood(self) -> None:
        """Send the same message as fast as it can, which only others send."""
        self.greet()
        while True:
            self.say(Loaded(900, 0.0))

    def watch(self) -> None:
        """Report as the monitor of a load that was never ordered."""
        self.greet()
        self.say(Watched(900, Monitored(samples=5)))
        self.say(Anchored(900, b"site"))

    def flood_watch(self) -> None:
        """Report as a monitor as fast as it can."""
        self.greet()
        while True:
            self.say(Watched(1, Monitored(samples=5)))

    def flood_findings(self) -> None:
        """Announce a pair as fast as it can."""
        self.greet()
        while True:
            self.say(Examining(0, "time"))

    def flood_shadow(self) -> None:
        """Report as a shadow as fast as it can."""
        self.greet()
        while True:
            self.say(Shadowed())

    def liar(self) -> None:
        """Report more that agrees than was compared."""
        self.greet()
        self.say(Shadowed(compared=1, agreed=2))
        self.hang_in_shadow()

    def nan(self) -> None:
        """Report an answer of NaN."""
        self.greet()
        self.say(Shadowed())
        while True:
            self.say(Shadowed(compared=1, not_finite=1))
            time.sleep(0.01)

    def starved_shadow(self) -> None:
        """Die as a shadow of the kernel's memory killer."""
        self.greet()
        self.say(Shadowed())
        os.kill(os.getpid(), signal.SIGKILL)

    def hang_in_shadow(self) -> None:
        """Begin well, then say nothing."""
        self.greet()
        self.say(Shadowed())

    def hang(self) -> None:
        """Greet, then say nothing."""
        self.greet()


def main() -> None:
    """Misbehave, then wait to be ended."""
    behaviour, _, control, *_ = sys.argv[1:]
    perform: Callable[[], None] = getattr(Rogue(int(control)), behaviour)
    perform()
    time.sleep(FOREVER_S)


if __name__ == "__main__":
    main()
