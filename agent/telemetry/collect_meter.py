"""From the meter's status to families."""

from agent.core.meter_status import MeterStatus
from agent.core.reasons import Reason
from agent.telemetry.families import Families


def collect_meter(families: Families, meter: MeterStatus) -> None:
    """Add what is paid for, and what is left of it."""
    families.add("tinyward_meter_left_units", meter.left)
    families.add("tinyward_meter_owed_units", meter.owed)
    families.add("tinyward_meter_reserved_units", meter.reserved)
    families.add("tinyward_meter_used_units_total", meter.used)
    families.add("tinyward_meter_lost_units_total", meter.lost)
    families.add("tinyward_meter_free_answers_total", meter.free)
    families.add("tinyward_meter_unlimited", float(meter.unlimited))
    for name, pipeline in meter.pipelines.items():
        unpaid = pipeline.reason == Reason.UNPAID
        families.add("tinyward_meter_unpaid", float(unpaid), name)
