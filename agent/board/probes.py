"""Named numbers of sysfs that are asked again and again, and are not all quick.

Most sensors answer in 5 us. One behind an I2C bus takes 10 to 100 ms, and old kernels
slept 20 ms to measure an idle core's frequency. The daemon's loop must not wait for
those, so that every file has to prove itself first, in the slow round, on a thread.

The rules this module keeps:
 * A file is read on the loop only after it was read quickly on the thread.
 * A file that was slow three times on the loop goes to the slow round, for good: single
   slow reads are the scheduler's, and drivers that keep a value for a second are quick
   in between.
 * What is not a plausible number is left out, until it is one again.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isnan, nan

from agent.board.sysfs import read_whole, within

Clock = Callable[[], float]
# Five times what a slow board (a Pi Zero 2) needs for one file of sysfs.
QUICK_S = 0.0005
# What the loop may be held up by one file: a tenth of what a person could see on the
# page, and above what a busy scheduler takes now and then.
SLOW_S = 0.002
STRIKES = 3


@dataclass(frozen=True, slots=True)
class Scale:
    """How a file's number becomes a reading: times ``factor``, if within the bounds.

    Attributes:
        factor: Of the unit: 0.001 for thousandths.
        least: Smallest reading that can be; ``most`` the largest.
    """

    factor: float
    least: float
    most: float

    def read(self, path: str) -> float:
        """Return the reading of a file; NaN for nonsense."""
        return within(read_whole(path) * self.factor, self.least, self.most)


@dataclass(slots=True)
class _Probe:
    """One file; ``strikes`` counts slow reads on the loop."""

    path: str
    value: float = nan
    quick: bool = False
    strikes: int = 0


@dataclass(slots=True)
class Probes:
    """Files of one kind, by name, in two speeds.

    ``read_fast`` belongs to the loop, ``look_for`` and ``read_slow`` to the thread;
    they share single attributes, whose assignment is atomic.
    """

    scale: Scale
    clock: Clock = time.perf_counter
    _probes: Mapping[str, _Probe] = field(default_factory=dict)

    def look_for(self, paths: Mapping[str, str]) -> None:
        """Take these files from now on: name -> path; known ones keep their speed."""
        known = {probe.path: probe for probe in self._probes.values()}
        self._probes = {
            name: known.get(path) or _Probe(path) for name, path in paths.items()
        }

    def read_slow(self) -> None:
        """Read what is not quick yet, or no longer."""
        for probe in self._probes.values():
            if probe.quick:
                continue
            took_s = self._read(probe)
            probe.quick = took_s < QUICK_S and probe.strikes < STRIKES

    def read_fast(self) -> tuple[tuple[str, float], ...]:
        """Return (name, newest reading) of all that make sense; read the quick ones."""
        probes = self._probes  # the thread may put another mapping in its place
        rows = []
        for name, probe in probes.items():
            if probe.quick and self._read(probe) > SLOW_S:
                probe.strikes += 1
                probe.quick = probe.strikes < STRIKES
            if not isnan(probe.value):
                rows.append((name, probe.value))
        return tuple(rows)

    def _read(self, probe: _Probe) -> float:
        """Read one file; return how long it took, in seconds."""
        begun = self.clock()
        probe.value = self.scale.read(probe.path)
        return self.clock() - begun
