"""An audit end to end: a board answers, keeps, is read, and is computed anew."""

import asyncio
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from agent.audit.key import load_audit_key
from agent.audit.log import Place
from agent.audit.opening import Opening, open_log
from agent.audit.verify import Asked
from agent.cli.audit_rerun import command
from agent.cli.rerun import AuditedModel, Demand, perform_audit
from agent.cli.rerun_evidence import FolderEvidence, whose
from agent.cli.rerun_reader import recompute
from agent.cli.rerun_words import Question
from agent.core.kept import KeptSample, parse_kept, render_kept, seal_context
from agent.core.kept_gaps import NOT_KEPT, render_gaps
from agent.core.note import NoteKey, render_key
from agent.core.protect_settings import AuditSettings
from agent.core.reasons import Reason
from agent.core.rerun import Recomputed
from agent.core.sealing_keys import parse_public_key, render_public_key
from agent.errors import DeviceError, SettingsError
from agent.publish.encrypting import wrap
from agent.trust.seal_key import load_seal_key, make_seal_key
from tests.e2e.conftest import FULL_LOAD, QUICK
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import Fleet, bundle, opened_bundle, variants

KEPT = 12  # of a recording at 200 a second, one in ten: some seconds


class Audited:
    """A board that has stopped, and what its owner has.

    Attributes:
        state: The board's state directory: its log and what it kept.
        live: What was answered while it ran; ``later`` only about later receipts.
    """

    def __init__(self, folder: Path, state: Path, bundle: Path) -> None:
        self.folder = folder
        self.state = state
        self.live = self.later = Result(CliRunner(), b"", b"", b"", None, 1, None)
        self.bundle = bundle
        key = load_audit_key(state / "audit.key", may_make=False)
        vkey = render_key(NoteKey("any", key.public))
        (folder / "board.vkey").write_text(f"{vkey}\n")

    def rerun(self, *more: str, state: Path | None = None) -> Result:
        """Call ``tinyward audit rerun``."""
        return self.ask("--log", (state or self.state) / "audit", *more)

    def ask(self, *more: object) -> Result:
        """Call it with what every call names."""
        named = ["--vkey", self.folder / "board.vkey", "--bundle", self.bundle]
        named += ["--owner-key", self.folder / "owner.key", "--json"]
        return CliRunner().invoke(command, [*map(str, (*named, *more))])

    def evidence(self) -> FolderEvidence:
        """Return the board's own folders, verified."""
        public = load_audit_key(self.state / "audit.key", may_make=False).public
        places = (self.state / "audit", self.state / "audit-kept")
        return FolderEvidence(*places, Asked(public), lambda *_: None)

    def copy(self, name: str) -> Path:
        """Return a copy of what an auditor gets."""
        copy = self.folder / name
        for part in ("audit", "audit-kept"):
            shutil.copytree(self.state / part, copy / part)
        return copy


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """Let a real daemon answer, keep, and stop."""
    folder = tmp_path_factory.mktemp("audited")
    owner = make_seal_key(folder / "owner.key")
    line = render_public_key(owner.public("owner"))
    (folder / "owner.pub").write_text(f"{line}\n")
    fleet = Fleet(folder / "fleet")
    fleet.publish(1)
    model = folder / "digits-1.bundle"
    model.write_bytes(bundle(1))
    audit = {
        "mode": "inputs",
        "owner_key": folder / "owner.pub",
        "keep_one_in": 10,
        "checkpoint_records": 64,
    }
    board = DaemonProcess(
        folder / "board",
        {**FULL_LOAD, "rate": 200.0},
        tables={"audit": audit, "update": fleet.update_table()},
        pipeline=QUICK,
    )
    with board:
        board.wait_version(1)
        kept = board.state_dir / "audit-kept"
        board.wait_for(
            lambda: kept.is_dir() and len(list(kept.glob("*.kept"))) >= KEPT,
            "kept inputs",
        )
        found = Audited(folder, board.state_dir, model)
        found.live = found.ask("--socket", board.socket, "--samples", 4)
        found.later = found.ask("--socket", board.socket, "--since", 70)
        board.signal(signal.SIGTERM)
        board.wait()
    return found


def told(result: Result) -> dict[str, Any]:
    """Return the JSON object that was printed."""
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_was_answered_comes_out_again(audited: Audited) -> None:
    """The same executor on the same machine gives each answer to the bit."""
    result = audited.rerun("--samples", "8", "--seed", "00" * 16)
    assert result.exit_code == 0, result.output
    found = told(result)
    assert (found["good"], found["results"]) == (True, {"exact": 8})
    assert found["candidates"] >= KEPT
    assert [it["seq"] for it in found["verdicts"]] == sorted(
        it["seq"] for it in found["verdicts"]
    )


def test_a_board_that_runs_is_audited_from_afar(audited: Audited) -> None:
    """Records and what was kept come over HTTP; older receipts may be left out."""
    assert audited.live.exit_code == 0, audited.live.output
    assert told(audited.live)["results"] == {"exact": 4}
    assert audited.later.exit_code == 0, audited.later.output
    assert all(it["seq"] >= 70 for it in told(audited.later)["verdicts"])


def test_a_seed_decides_what_is_asked(audited: Audited) -> None:
    """The same seed asks for the same receipts, another one for others."""
    asked = [
        [it["seq"] for it in told(audited.rerun("--samples", "5", *seed))["verdicts"]]
        for seed in (("--seed", "11" * 16), ("--seed", "11" * 16), ())
    ]
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


def test_another_model_is_found_out(audited: Audited) -> None:
    """Receipts that name the audited model, and what another one answered."""
    impostor = opened_bundle(bundle(2))
    honest = opened_bundle(bundle(1))

    def other_models(
        question: Question, progress: Callable[[], None]
    ) -> Iterator[Recomputed]:
        content = bytes(impostor.variant_bytes(question.variant))
        asked = structs.replace(
            question,
            manifest=impostor.raw_manifest,
            content=content,
            sha256=sha256(content).hexdigest(),
            golden=bytes(impostor.golden),
        )
        return recompute(asked, progress)

    models = {
        sha256(content).digest(): AuditedModel(honest, name, content)
        for name, content in variants(honest).items()
    }
    key = load_seal_key(audited.folder / "owner.key")
    demand = Demand(b"seed", KEPT, 0, key.unwrap, models, other_models)
    audit = perform_audit(audited.evidence(), demand, lambda *_: None)
    assert not audit.is_good
    assert {"differs"} == {it.result for it in audit.verdicts}
    assert {Reason.AUDIT} == {it.reason for it in audit.verdicts}


def test_what_was_kept_cannot_be_exchanged(audited: Audited) -> None:
    """Swapped, damaged and removed files are findings, each by its word."""
    state = audited.copy("exchanged")
    files = sorted((state / "audit-kept").glob("*.kept"))
    one, two = files[1].read_bytes(), files[2].read_bytes()
    files[1].write_bytes(two)
    files[2].write_bytes(one)
    files[3].write_bytes(files[3].read_bytes()[:-1])
    files[4].unlink()
    result = audited.rerun("--samples", "100000", state=state)
    assert result.exit_code == 1
    assert isinstance(result.exception, DeviceError)
    assert result.exception.reason == Reason.AUDIT
    bad = {it["seq"]: it["result"] for it in told(result)["verdicts"] if it["reason"]}
    expected = ["unopened", "unopened", "unopened", "missing"]
    assert bad == dict(zip([int(it.stem) for it in files[1:5]], expected, strict=True))


def test_what_the_log_says_was_not_kept_is_no_finding(audited: Audited) -> None:
    """A board that was too busy says so beside its receipts, and is not accused."""
    state = audited.copy("busy")
    files = sorted((state / "audit-kept").glob("*.kept"))
    receipt = audited.evidence().prove(int(files[2].stem))
    key = load_audit_key(audited.state / "audit.key", may_make=False)
    board_id = audited.evidence().checkpoint.origin.split("/")[1]
    place = Place("", "-", lambda: "-", time.time)  # noqa: TID251 - as by the daemon
    log = open_log(AuditSettings(), Opening(state, board_id, key, None, place))
    (facts,) = render_gaps("digits", [(receipt.seq, receipt.seq)])
    log.note(NOT_KEPT, facts)
    asyncio.run(log.close())
    files[2].unlink()
    files[3].unlink()
    found = told(audited.rerun("--samples", "100000", state=state))
    results = {it["seq"]: it["result"] for it in found["verdicts"]}
    assert results[int(files[2].stem)] == "not_kept"
    assert results[int(files[3].stem)] == "missing"


def test_what_was_sealed_for_another_receipt_is_unbound(audited: Audited) -> None:
    """Whoever knows the owner's public key can seal anything, and gains nothing."""
    state = audited.copy("forged")
    first = min((state / "audit-kept").glob("*.kept"))
    evidence = audited.evidence()
    receipt = evidence.prove(int(first.stem))
    forged = render_kept(KeptSample(1, (b"another",), (b"input",)))
    context = seal_context(whose(evidence), receipt.pipeline, receipt.seq)
    owner = parse_public_key((audited.folder / "owner.pub").read_text())
    first.write_bytes(wrap(forged, owner, context))
    found = told(audited.rerun("--samples", "100000", state=state))
    bad = {it["seq"]: it["result"] for it in found["verdicts"] if it["reason"]}
    assert bad == {receipt.seq: "unbound"}


def test_what_the_quota_removed_is_no_finding(audited: Audited) -> None:
    """The oldest go first: what is gone before all others is counted, not missed."""
    state = audited.copy("shrunk")
    files = sorted((state / "audit-kept").glob("*.kept"))
    for path in files[:3]:
        path.unlink()
    result = audited.rerun("--samples", "4", state=state)
    assert result.exit_code == 0
    assert told(result)["removed"] == 3


def test_another_owner_opens_nothing(audited: Audited) -> None:
    """Kept inputs are for the one they were sealed to."""
    make_seal_key(audited.folder / "other.key")
    result = audited.rerun("--owner-key", str(audited.folder / "other.key"))
    assert {"unopened"} == set(told(result)["results"])


def test_inputs_are_nowhere_in_the_clear(audited: Audited) -> None:
    """What was kept is in no file of the state directory as the model was given it."""
    # Objects are bundles, whose golden samples are of the same recording.
    written = [
        path.read_bytes()
        for path in audited.state.rglob("*")
        if path.is_file() and path.parent.name != "obj"
    ]
    evidence, key = audited.evidence(), load_seal_key(audited.folder / "owner.key")
    seqs = evidence.kept(0, evidence.checkpoint.size)
    for seq in seqs:
        receipt = evidence.prove(seq)
        context = seal_context(whose(evidence), receipt.pipeline, seq)
        sample = parse_kept(key.unwrap(evidence.sealed(seq) or b"", context))
        assert not any(it in content for it in sample.inputs for content in written)
    assert len(seqs) >= KEPT


@pytest.mark.parametrize(
    ("option", "value"), [("--seed", "xyz"), ("--seed", "00"), ("--vkey", __file__)]
)
def test_options_that_do_not_fit(audited: Audited, option: str, value: str) -> None:
    """Each is refused with what to do."""
    result = audited.rerun(option, value)
    assert isinstance(result.exception, SettingsError)
    assert result.exception.todo
