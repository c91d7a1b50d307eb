"""From the board's readings to families.

The rules this module keeps:
 * What the board does not have has no series.
 * What explains a slow or silent agent is essential; the rest goes first where there is
   no room: node_exporter has it, too.
"""

from agent.core.readings import BoardReadings
from agent.telemetry.families import METRICS, OWN, Families, Part
from agent.telemetry.ranks import Rank


def collect_board(families: Families, board: BoardReadings) -> None:
    """Add what the board's sensors say."""
    families.part = OWN
    _collect_heat(families, board)
    _collect_room(families, board)
    families.part = Part("", Rank.BOARD)
    _collect_rest(families, board)
    families.part = OWN


def _collect_heat(families: Families, board: BoardReadings) -> None:
    """What board it is, how hot, and how fast it may be."""
    it = board.identity
    if it.kernel:  # what was read has one
        words = (it.model, it.kind, it.kernel, it.system, board.power_mode)
        families.add_info("tinyward_board_info", *words)
    for sensor, celsius in board.temperatures:
        families.add("tinyward_board_temperature_celsius", celsius, sensor)
    for kind, holds in board.throttled:
        families.add("tinyward_board_throttled", float(holds), kind)
    families.add("tinyward_board_cpu_frequency_hertz", board.cpu_frequency_hertz)


def _collect_room(families: Families, board: BoardReadings) -> None:
    """What runs out: memory, disk, its life; and the clock."""
    available = board.memory_available_bytes
    families.add("tinyward_board_memory_available_bytes", available)
    families.add("tinyward_board_filesystem_avail_bytes", board.disk_free_bytes)
    for device, share in board.disk_wear:
        families.add("tinyward_board_disk_wear_ratio", share, device)
    if board.clock_synchronised is not None:
        kept = float(board.clock_synchronised)
        families.add("tinyward_board_timex_sync_status", kept)


def _collect_rest(families: Families, board: BoardReadings) -> None:
    """What helps to find out why."""
    fastest = board.cpu_frequency_max_hertz
    families.add("tinyward_board_cpu_frequency_max_hertz", fastest)
    if board.governor:
        families.add("tinyward_board_cpu_scaling_governor", 1.0, board.governor)
    for device, hertz in board.device_hertz:
        families.add("tinyward_board_device_frequency_hertz", hertz, device)
    for kind, share in board.cooling:
        families.add("tinyward_board_cooling_ratio", share, kind)
    families.add("tinyward_board_memory_size_bytes", board.memory_size_bytes)
    families.add("tinyward_board_filesystem_size_bytes", board.disk_size_bytes)
    for device, count in board.disk_written_bytes:
        families.add("tinyward_board_disk_written_bytes_total", count, device)
    for resource, state, seconds in board.pressure_seconds:
        name = f"tinyward_board_pressure_{resource}_{state}_seconds_total"
        if name in METRICS:  # a machine as a whole is never stalled for a processor
            families.add(name, seconds)
