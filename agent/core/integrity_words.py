"""What the integrity of a pipeline is, in one line for people and in JSON."""

from agent.core.integrity import IntegrityView, describe_evidence

NAMES = {
    "source": "the model's file in memory",
    "packed": "the copies that kernels read",
    "answers": "known answers",
    "audit": "answers on other kernels",
}


def describe_integrity(view: IntegrityView) -> dict[str, object] | None:
    """Return it as a JSON-able object; None where nothing is checked."""
    if not view.wanted and view.last is None:
        return None
    now = view.now
    last = view.last
    return {
        "text": say_integrity(view),
        "checks": dict(view.checks),
        "mismatches": dict(view.mismatches),
        "covered_bytes": dict(now.bytes) if now else {},
        "pass_age_s": None
        if view.since_pass_s is None
        else round(view.since_pass_s, 3),
        "skipped": dict(now.skipped) if now else {},
        "last": describe_evidence(last) if last else "",
        "last_ago_s": round(view.last_ago_s, 3) if last else None,
        "answer": view.answer,
    }


def say_integrity(view: IntegrityView) -> str:
    """Return one line: what was found, else how much is checked.

    >>> say_integrity(IntegrityView(wanted=True))
    'not checked yet'
    """
    found = sum(view.mismatches.values())
    if found and view.last is not None:
        done = "restarted" if view.answer == "restart" else "set aside"
        return f"{found} found, {done}: {NAMES[view.last.check]}"
    if not view.checks:
        return "not checked yet"
    passes = view.checks.get("source", 0)
    covered = sum(view.now.bytes.values()) if view.now else 0
    asked = view.checks.get("answers", 0)
    audited = view.checks.get("audit", 0)
    return (
        f"as verified: {covered / 1000:.0f} KB hashed {passes} times, "
        f"{asked} known answers, {audited} audits"
    )
