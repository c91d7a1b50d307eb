"""From what is told of the log of receipts to families, and their rows."""

from agent.core.log_view import LogView
from agent.telemetry.families import Families


def collect_log(families: Families, log: LogView) -> None:
    """Return how much was logged and signed, and what was lost."""
    families.add("tinyward_audit_records_total", log.records)
    families.add("tinyward_audit_lost_total", log.lost)
    families.add("tinyward_audit_checkpoints_total", log.checkpoints)
    families.add("tinyward_audit_unsigned_records", log.unsigned)
    families.add("tinyward_audit_log_bytes", log.bytes)
    families.add("tinyward_audit_checkpoint_age_seconds", log.age_s)
    families.add("tinyward_audit_set_aside", log.aside)
    families.add("tinyward_audit_gaps_total", log.gaps)
    families.add("tinyward_audit_inputs_not_kept_total", log.not_kept)
