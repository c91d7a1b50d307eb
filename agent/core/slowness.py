"""What a board's state explains of a slow model: how much of its clock it had.

The rules this module keeps:
 * A board that saves power is not slow: only what holds it down counts, be it said by
   its firmware, by a cooling device of its processor, or by its heat.
 * Where the clock shows how much was lost, durations are corrected by that; where it
   does not, because the firmware slows down below what the kernel sees (a Pi shows the
   frequency that was asked for), durations tell nothing: the share is 0.
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
    return Reason.HEAT if celsius >= hot_c else Reason.NONE


def clock_share(readings: Sequence[BoardReadings], hot_c: float = HOT_C) -> float:
    """Return the share of its full clock that a board had: 1 unless it is throttled.

    The full clock is what the processor may reach, else the fastest of all readings;
    0 if it is held down and does not show by how much.

    >>> hot = BoardReadings(cpu_frequency_hertz=6e8, throttled=(("throttled", True),))
    >>> clock_share([BoardReadings(cpu_frequency_hertz=15e8), hot])
    0.7
    >>> clock_share([BoardReadings(throttled=(("throttled", True),))])
    0.0
    """
    why = [slowed_by(each, hot_c) for each in readings]
    if not any(why):
        return 1.0
    clocks = [each.cpu_frequency_hertz for each in readings]
    known = [clock for clock in clocks if clock > 0]  # also false for NaN
    if not known:
        return 0.0
    limits = [each.cpu_frequency_max_hertz for each in readings]
    full = max(*known, *(limit for limit in limits if limit > 0), 0.0)
    share = min(1.0, sum(known) / len(known) / full)  # rounding aside
    # Heat alone slows nothing down yet; a brake that no clock shows does.
    hidden = share > FULL_CLOCK and any(it not in ("", Reason.HEAT) for it in why)
    return 0.0 if hidden else share


def excuse(error: AgentError, readings: Sequence[BoardReadings]) -> AgentError:
    """Return the error that says to try later, where the board explains a slow model.

    Args:
        error: Why a trial failed.
        readings: Of the board, around that time.

    Returns:
        ``error`` itself, unless its reason is ``latency`` and the board was slowed
        down: then a ``DeviceError`` with what slowed it, which sets no bundle aside.
    """
    why = next((found for each in readings if (found := slowed_by(each))), Reason.NONE)
    if error.reason != Reason.LATENCY or not why:
        return error
    return DeviceError(
        f"the board was slowed down ({why}) when it was timed: {error}",
        reason=why,
        todo="It is tried again; cool the board, or give it better power.",
    )


def _brakes(board: BoardReadings) -> bool:
    """Whether a cooling device slows the processor down."""
    return any(
        share > 0 and not isnan(share) and name.lower().startswith(_BRAKES)
        for name, share in board.cooling
    )
