"""Events in words: what the page says of a line of the log; the line stands behind it.

The rules this module keeps:
 * An event of which nothing is known here is shown as its name, with its detail.
 * Templates are ours; what fields hold is put in as it is, never read as a template.

>>> say_event(Event(1, 0.0, "info", "agent.stopping"))
'The agent is asked to stop.'
"""

from collections.abc import Mapping

import msgspec

from agent.core.events import Event
from agent.core.ladder_words import LEVELS, say_held
from agent.core.reasons import Reason
from agent.core.watching import Alarm, Scope
from agent.endpoint.live_words import ANCHORS, as_sentence, explain, say_alarm

Json = dict[str, object]
PHASE = "update.phase"
WORDS: Mapping[str, str] = {
    "agent.stopping": "The agent is asked to stop.",
    "agent.stopped": "The agent ended.",
    "bundle.set_aside": "A bundle is not tried again on this board",
    "child.said": "A process of ours says",
    "control.address": "The control listener is open",
    "control.certificate": "The board's certificate cannot be used",
    "control.certificate_reloaded": "The board's certificate was read again.",
    "control.handshake": "Somebody knocked and could not show a certificate",
    "control.overloaded": "Too many connections: new ones wait.",
    "ddi.accepted": "The fleet's server gave an order.",
    "ddi.canceled": "The fleet's server takes an order back.",
    "ddi.recovered": "The fleet's server answers again.",
    "ddi.taken_away": "The fleet's server has no more of its order.",
    "ddi.told": "The fleet's server was told: {said}.",
    "ddi.trouble": "The fleet's server cannot be followed",
    "ddi.unreadable": "What the fleet's server ordered cannot be read any more",
    "degradation.lacking": "The board would do less, but it cannot",
    "degradation.not_done": "The board would do less, but the worker does not follow",
    "desired.unreadable": "What an operator wanted cannot be read",
    "integrity.mismatch": "What runs is not what was verified: {check}, {what}.",
    "memory.not_private": "Opened models may get into a dump ({what})",
    "metrics.complete": "All metrics have room again.",
    "metrics.left_out": "Metrics are left out, there is no room for more",
    "model.answers": "{model} {version} answers now.",
    "model.set_aside": "{model} {version} failed and is not tried again",
    "model.unreadable": "The committed model cannot be read or opened",
    "monitor.anchor_damaged": "The kept baseline is damaged; it is learnt anew",
    "monitor.anchored": "What is normal here is known now: later input is compared.",
    "monitor.commissioning": "The board learns what is normal here.",
    "monitor.invalid": "The monitor cannot compare",
    "monitor.not_kept": "The baseline could not be kept",
    "monitor.over_budget": "The monitor takes more time than it may.",
    "operator.commission": "{operator} began the baseline anew.",
    "operator.desired": "{operator} said what should run.",
    "operator.desired_forgotten": "{operator} took back what should run.",
    "operator.forgive": "{operator} lets a bundle be tried again.",
    "operator.look": "{operator} had the board look for updates.",
    "operator.rollback": "{operator} went back to the model before.",
    "operator.rollback_failed": "Going back to the model before failed",
    "operator.trial_ended": "{operator} ended a trial.",
    "probation.few": "Probation passed with few samples.",
    "probation.passed": "Probation passed.",
    "probation.progress": "On probation.",
    "program.ended": "The program {program} ended",
    "seal.key_open": "Others may read the key for sealed models",
    "shadow.few": "Shadowing saw few samples.",
    "shadow.passed": "Shadowing passed: both models were compared.",
    "shadow.progress": "Shadowing goes on.",
    "sink.failed": "The sink {sink} takes no predictions",
    "state.rebuilt": "The store's state was damaged and was rebuilt",
    "store.damaged": "A stored bundle is damaged",
    "settings.applied": "New settings are in force: {keys}.",
    "settings.refused": "New settings are refused, the old ones stay in force",
    "settings.restart": "{key} has changed",
    "settings.unchanged": "The settings were read again and say the same.",
    "settings.waits": "New settings wait",
    "store.not_written": "The disk took no more",
    "swap.back_failed": "The model before could not be taken back",
    "update.committed": "Installed {model} {version}.",
    "update.delta": "No delta to {model} {version}, all of it is fetched",
    "update.delta_applied": "Built {model} {version} from what was here and a delta.",
    "update.desired": "What is wanted has changed.",
    "update.early": "{model} {version} is here for later.",
    "update.early_stopped": "{model} {version} is not fetched on for later.",
    "update.envelope": "What opens {model} {version} here came anew.",
    "update.failed": "Tried {model} {version} and gave up",
    "update.interrupted": "The update to {model} {version} was interrupted",
    "update.refused": "Refused {model} {version}",
    "update.rolled_back": "Rolled back {model} {version}",
    "update.stumbled": "The update to {model} {version} stumbled",
    "watermark.challenged": "{operator} asked which copy of the model runs.",
    "watermark.own": "{model} is this board's own copy.",
    "worker.died": "The process that runs the model died",
    "worker.failed": "The process that runs the model failed",
    "worker.hung": "The process that runs the model hangs and is ended.",
    "worker.load_failed": "The model could not be loaded",
    "worker.no_source": "The source cannot be opened",
    "worker.no_start": "The process that runs the model does not begin",
}
_PHASES: Mapping[str, str] = {
    "FETCHING": "is fetched",
    "VERIFYING": "is verified",
    "STAGING": "is written to the disk",
    "PREFLIGHT": "is tried in a process that may fail",
    "SHADOWING": "answers copies of live samples",
    "PROBATION": "answers, on probation",
    "COMMITTING": "is made the model that this board starts with",
    "ROLLING_BACK": "is taken back",
}
_CLEARED: Mapping[Scope, str] = {
    "input": "the input looks again like {anchor}",
    "output": "the model's confidence looks again like {anchor}",
    "all": "input and answers together look again like {anchor}",
    "prediction": "the mix of answers is again that of {anchor}",
    "stuck": "the input moves again",
}


class _Fields(dict[str, str]):
    """Fields of which some may not be there."""

    def __missing__(self, key: str) -> str:
        return "?"


def describe_event(event: Event) -> Json:
    """Return an event for the page: in words, with its name and fields.

    ``story`` is the same for all phases of one update, of which one line is enough.
    """
    fields = event.fields
    told = (fields.get(key, "") for key in ("pipeline", "model", "version"))
    return {
        "id": event.id,
        "at": event.at,
        "level": event.level,
        "name": event.name,
        "fields": fields,
        "text": say_event(event),
        "story": "\n".join(told) if event.name == PHASE else "",
    }


def say_event(event: Event) -> str:
    """Return an event as a sentence, behind the pipeline it is about."""
    whose = event.fields.get("pipeline", "")
    return f"{whose}: {_tell(event)}" if whose else _tell(event)


def _tell(event: Event) -> str:
    """Return an event as a sentence."""
    name, fields = event.name, _Fields(event.fields)
    if name == PHASE:
        return _tell_phase(fields)
    if name == "control.order":
        why = f", refused: {explain(fields['reason'])}" if fields.get("reason") else "."
        return f"{fields['operator']} asked for {fields['order']}{why}"
    if name == "degradation.changed":
        return _tell_ladder(fields)
    if name.startswith("drift."):
        return _tell_drift(name, fields)
    known = WORDS.get(name)
    if known is None:
        known = name.replace(".", " ").replace("_", " ").capitalize()
    text = known.format_map(fields)
    if text.endswith("."):
        return text
    why = event.fields.get("detail") or explain(event.fields.get("reason", ""))
    return as_sentence(f"{text}: {why}" if why else text)


def _tell_phase(fields: Mapping[str, str]) -> str:
    """Say what an update does now, or that it has ended."""
    what = f"{fields['model']} {fields['version']}"
    if fields["phase"] != "IDLE":
        known = _PHASES.get(fields["phase"], fields["phase"].lower())
        return f"Update: {what} {known}."
    ended = fields["event"].replace("_", " ").lower()
    return f"The update to {what} has ended: {ended}."


def _tell_ladder(fields: Mapping[str, str]) -> str:
    """Say where a pipeline stands now, why, and what is done about it."""
    to = LEVELS.get(fields["to"], f"is {fields['to']} now")
    measures = [it for it in fields.get("measures", "").split(", ") if it]
    if fields["reason"] == Reason.CALM:
        return as_sentence(say_held(f"It has become calmer and {to}", measures))
    why = fields.get("detail") or explain(fields["reason"]).removesuffix(".")
    said = say_held(why, measures)
    return as_sentence(f"It {to}: {said}" if said else f"It {to}")


def _tell_drift(name: str, fields: Mapping[str, str]) -> str:
    """Say what an alarm means, and what moved most."""
    said = {key: fields[key] for key in ("anchor", "scope")}
    try:
        alarm = msgspec.convert(
            {**said, "active": True, "confirmed": name == "drift.confirmed"}, Alarm
        )
    except msgspec.ValidationError:  # of a newer agent, or a line without them
        return as_sentence(name.replace(".", " ").capitalize())
    if name == "drift.cleared":
        words = _CLEARED[alarm.scope].format(anchor=ANCHORS[alarm.anchor])
        return f"Alarm over: {words}."
    if "feature" not in fields:
        return say_alarm(alarm)
    return f"{say_alarm(alarm)} Moved most: {fields['feature']} ({fields['shift']})."
