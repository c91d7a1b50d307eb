"""The newest readings of the board, kept at hand.

The rules this module keeps:
 * ``BoardWatch`` reads in its own time; a scrape only takes the last readings, so that
   it touches neither disk nor kernel.
 * The loop reads only what is quick. The rest is read by a thread, every 15 s; one that
   does not come back is told once, and what it read before goes out of date: no second
   thread is started beside it.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.board.sensors import BoardSensors, find_sensors
from agent.core.readings import BoardReadings

log = logging.getLogger(__name__)
PERIOD_S = 5.0  # boards are scraped every 15 to 60 s; heat changes within seconds
SLOW_PERIOD_S = 15.0  # Prometheus' usual interval: each scrape finds a newer one
LOOK_AGAIN = 4  # slow rounds, a minute: for sensors that are plugged in
# A round of slow sensors takes 1 s at worst; a driver that hangs takes for ever.
STUCK_S = 60.0


class SlowRound:
    """Reads what is slow on a thread of its own, one round at a time.

    Args:
        sensors: What to read.
        clock: Seconds of a clock that never jumps.
    """

    def __init__(
        self, sensors: BoardSensors, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sensors = sensors
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._begun = -SLOW_PERIOD_S
        self._rounds = 0
        self._readings = BoardReadings()
        self._told = False

    def readings(self) -> BoardReadings:
        """Return what the last round read; begin another one when it is due."""
        now = self._clock()
        if self._thread is not None and self._thread.is_alive():
            if now - self._begun > STUCK_S:
                self._give_up(now - self._begun)
        elif now - self._begun >= SLOW_PERIOD_S:
            self._begun, self._told = now, False
            # A daemon thread: one that hangs in a driver must not keep us from ending.
            self._thread = threading.Thread(target=self.read, name="board", daemon=True)
            self._thread.start()
        return self._readings

    def read(self) -> BoardReadings:
        """Read everything that is slow, now."""
        if self._rounds % LOOK_AGAIN == 0:
            self._sensors.look_again()
        self._rounds += 1
        self._readings = self._sensors.read_slow()
        return self._readings

    def _give_up(self, seconds: float) -> None:
        """Forget what is out of date, and say so once."""
        self._readings = BoardReadings()
        if not self._told:
            self._told = True
            log.warning("board.sensors_stuck", extra={"seconds": round(seconds)})


class BoardWatch:
    """Keeps the newest readings at hand.

    Args:
        sensors: What to read.
        period_s: How often the quick ones are read.
    """

    def __init__(self, sensors: BoardSensors, period_s: float = PERIOD_S) -> None:
        self._sensors = sensors
        self._period_s = period_s
        self._slow = SlowRound(sensors)
        self._readings = sensors.read_fast(self._slow.readings())

    @property
    def readings(self) -> BoardReadings:
        """The newest readings, at most ``period_s`` old while ``run`` runs."""
        return self._readings

    async def run(self) -> None:
        """Read for ever; ends only by cancellation."""
        while True:
            await asyncio.sleep(self._period_s)
            self._readings = self._sensors.read_fast(self._slow.readings())


def read_board(disk: Path = Path("/"), root: Path = Path("/")) -> BoardReadings:
    """Read the board once, all of it, however long it takes.

    Rates then cover the time it took: they are of little use.
    """
    sensors = find_sensors(disk, root)
    slow = SlowRound(sensors).read()
    return sensors.read_fast(slow)
