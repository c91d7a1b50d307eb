"""From what the integrity checks say to families.

The rules this module keeps:
 * Where nothing is checked there are no series: 0 mismatches would be good news.
 * Checks are words of a fixed list; counters start at 0.
"""

from agent.core.integrity import CHECKS, IntegrityView
from agent.telemetry.families import Families, Part
from agent.telemetry.ranks import Rank


def collect_integrity(
    families: Families, pipeline: str, integrity: IntegrityView
) -> None:
    """Add what one pipeline's checks have done and found."""
    if not integrity.wanted:
        return
    families.part = Part(pipeline, Rank.ESSENTIAL)
    for check in CHECKS:
        found = integrity.mismatches.get(check, 0)
        families.add("tinyward_integrity_mismatches_total", found, pipeline, check)
    families.part = Part(pipeline, Rank.STAGES)
    for check in CHECKS:
        done = integrity.checks.get(check, 0)
        families.add("tinyward_integrity_checks_total", done, pipeline, check)
    if integrity.since_pass_s is not None:
        age_s = integrity.since_pass_s
        families.add("tinyward_integrity_pass_age_seconds", age_s, pipeline)
    for check, covered in (integrity.now.bytes if integrity.now else {}).items():
        families.add("tinyward_integrity_covered_bytes", covered, pipeline, check)
