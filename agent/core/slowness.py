"""What a board's state explains of a slow model: whether it is held down just now.

The rules this module keeps:
 * A board that saves power is not slow: only what holds it down counts, be it said by
   its firmware, by a cooling device of its processor, or by its heat.
 * Heat alone slows nothing down while the clock is full, and may do so where it is not,
   or where nobody knows it (a Pi shows the frequency that was asked for, which is why
   its firmware's word counts at any clock).
 * Durations are not corrected: clocks idle, and some lie. What was timed while a board
   was held down is just no evidence against a model.
"""

from collections.abc import Sequence
from math import isnan

from agent.core.lookout import hottest
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError

HOT_C = 80.0  # where `degrade.hot_c` stands unless it is set; a Pi slows down here
# Cooling devices of Linux that slow a processor down, by the beginnings of their types
# (drivers/thermal: cpufreq_cooling.c, cpuidle_cooling.c, intel/intel_powerclamp.c;
# drivers/acpi/processor_thermal.c). A fan cools and slows nothing.
_BRAKES = ("thermal-cpufreq", "cpufreq", "idle-", "processor", "intel_powerclamp")
# Above it a clock shows no throttling: what cpufreq rounds to a step of its table.
FULL_CLOCK = 0.98


def slowed_by(board: BoardReadings, hot_c: float = HOT_C) -> Reason:
    """Return what slows a board down at one moment, or nothing.

    >>> str(slowed_by(BoardReadings(temperatures=(("soc", 81.0),))))
    'heat'
    >>> str(slowed_by(BoardReadings(cooling=(("pwm-fan", 1.0),))))
    ''
    """
    kinds = [kind for kind, holds in board.throttled if holds]
    if "under_voltage" in kinds:
        return Reason.UNDER_VOLTAGE
    if kinds or _brakes(board):
        return Reason.THROTTLED
    _, celsius = hottest(board)
    hot = celsius >= hot_c and not _has_full_clock(board)
    return Reason.HEAT if hot else Reason.NONE


def excuse(
    error: AgentError, readings: Sequence[BoardReadings], hot_c: float = HOT_C
) -> AgentError:
    """Return the error that says to try later, where the board explains a slow model.

    Args:
        error: Why a trial failed.
        readings: Of the board, around that time.
        hot_c: From where on heat slows a board down.

    Returns:
        ``error`` itself, unless its reason is ``latency`` and the board was slowed
        down: then a ``DeviceError`` with what slowed it, which sets no bundle aside.
    """
    found = (slowed_by(each, hot_c) for each in readings)
    why = next((it for it in found if it), Reason.NONE)
    if error.reason != Reason.LATENCY or not why:
        return error
    return DeviceError(
        f"the board was slowed down ({why}) when it was timed: {error}",
        reason=why,
        todo="It is tried again; cool the board, or give it better power.",
    )


def _has_full_clock(board: BoardReadings) -> bool:
    """Whether the processor runs as fast as it can; false where nobody knows."""
    return (
        board.cpu_frequency_hertz >= FULL_CLOCK * board.cpu_frequency_max_hertz  # NaN
        and board.cpu_frequency_max_hertz > 0
    )


def _brakes(board: BoardReadings) -> bool:
    """Whether a cooling device slows the processor down."""
    return any(
        share > 0 and not isnan(share) and name.lower().startswith(_BRAKES)
        for name, share in board.cooling
    )
