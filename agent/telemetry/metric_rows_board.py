"""The metrics of the board itself.

Where node_exporter has such a metric, it is called the same, with ``tinyward_board_``
before it: whoever runs both can copy a rule from one to the other.
"""

from agent.telemetry.metric_row import MetricRow

BOARD_ROWS = (
    MetricRow(
        "tinyward_board_info",
        "info",
        ("model", "kind", "kernel", "system", "power_mode"),
        "What the board is: its model, whose sensors it has, kernel and distribution; "
        "on a Jetson its power mode.",
    ),
    MetricRow(
        "tinyward_board_temperature_celsius",
        "gauge",
        ("sensor",),
        "Temperature by sensor.",
    ),
    MetricRow(
        "tinyward_board_throttled",
        "gauge",
        ("kind",),
        "1 for what slows the board down now: under_voltage, frequency_capped, "
        "throttled, soft_temperature_limit, over_current; those that the board tells.",
    ),
    MetricRow(
        "tinyward_board_cooling_ratio",
        "gauge",
        ("type",),
        "Share of its states that a kind of cooling device uses: a fan, or a processor "
        "that is slowed down.",
    ),
    MetricRow(
        "tinyward_board_cpu_frequency_hertz",
        "gauge",
        (),
        "Current frequency of the processor, the mean over its cores.",
    ),
    MetricRow(
        "tinyward_board_cpu_frequency_max_hertz",
        "gauge",
        (),
        "Frequency that the processor may reach, the mean over its cores.",
    ),
    MetricRow(
        "tinyward_board_cpu_scaling_governor",
        "gauge",
        ("governor",),
        "1 for who chooses the processor's frequency.",
    ),
    MetricRow(
        "tinyward_board_device_frequency_hertz",
        "gauge",
        ("device",),
        "Current frequency of what else is scaled: gpu, memory and others.",
    ),
    MetricRow(
        "tinyward_board_memory_available_bytes",
        "gauge",
        (),
        "Memory that can be had without swapping.",
    ),
    MetricRow(
        "tinyward_board_memory_size_bytes",
        "gauge",
        (),
        "Memory of the machine.",
    ),
    *(
        MetricRow(
            f"tinyward_board_pressure_{resource}_{state}_seconds_total",
            "counter",
            (),
            f"Time in which {what} (PSI).",
        )
        for resource, state, what in (
            ("cpu", "waiting", "something waited for a processor"),
            ("memory", "waiting", "something waited for memory"),
            ("memory", "stalled", "nothing went on for want of memory"),
            ("io", "waiting", "something waited for a disk"),
            ("io", "stalled", "nothing went on for want of a disk"),
        )
    ),
    MetricRow(
        "tinyward_board_filesystem_avail_bytes",
        "gauge",
        (),
        "Free space for the agent on the state directory's file system.",
    ),
    MetricRow(
        "tinyward_board_filesystem_size_bytes",
        "gauge",
        (),
        "Size of the state directory's file system.",
    ),
    MetricRow(
        "tinyward_board_disk_written_bytes_total",
        "counter",
        ("device",),
        "Bytes written to a disk since boot, by all programs.",
    ),
    MetricRow(
        "tinyward_board_disk_wear_ratio",
        "gauge",
        ("device",),
        "Used share of a disk's life, rounded up to a tenth; eMMC only.",
    ),
    MetricRow(
        "tinyward_board_timex_sync_status",
        "gauge",
        (),
        "1 if the board's clock is kept right by a time server, else 0.",
    ),
)
