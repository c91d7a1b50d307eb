"""Readings: the vector that a board source promises."""

from math import isnan

from agent.core.readings import BoardReadings

FULL = BoardReadings(
    cpu_percent=1.0,
    memory_percent=2.0,
    disk_percent=3.0,
    load_1min=4.0,
    cpu_frequency_hertz=1.5e9,
    received_bytes_per_s=7.0,
    sent_bytes_per_s=8.0,
    temperatures=(("soc", 40.0), ("gpu", 55.0)),
)


def test_vector_has_the_promised_order_and_units() -> None:
    """Percent, percent, percent, load, the hottest sensor, MHz, bytes, bytes."""
    assert FULL.vector() == [1.0, 2.0, 3.0, 4.0, 55.0, 1500.0, 7.0, 8.0]


def test_absent_sensors_are_nan() -> None:
    """A board without sensors gives eight values, none of them invented."""
    assert [isnan(value) for value in BoardReadings().vector()] == [True] * 8
