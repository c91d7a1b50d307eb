"""An audit by computing anew: which receipts, what was kept of them, what comes out.

The rules this module keeps:
 * Nothing that the board brought is believed: what was kept is held against its
   receipt, that against the checkpoint, and its answer against what a child computes.
 * What was to be there and is not is a finding, unless the log says itself that it was
   not kept: a disk was full, or slow. What the quota removed is older than
   all that is there; it is counted, and nobody can be asked for it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.cli.rerun_evidence import Evidence, whose
from agent.cli.rerun_reader import recompute
from agent.cli.rerun_words import Inference, Question
from agent.core.kept import KeptSample, choose, fits_receipt, parse_kept, seal_context
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.receipts import EVENT, KEPT, Receipt
from agent.core.rerun import BAD, Recomputed, Verdict, bad, conclude
from agent.errors import DeviceError

Open = Callable[[bytes, bytes], bytes | None]  # (sealed, context) -> plain, or not ours
Recompute = Callable[[Question, Callable[[], None]], Iterator[Recomputed]]


@dataclass(frozen=True, slots=True)
class AuditedModel:
    """A model that an auditor has.

    Attributes:
        bundle: Its bundle, opened.
        variant: Which variant; ``content`` its .tflite as the board runs it.
    """

    bundle: OpenedBundle
    variant: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Demand:
    """What an auditor asks.

    Attributes:
        seed: Revealed after the checkpoint.
        samples: How many inferences; ``since`` the first receipt that may be asked for.
        open: Opens what was sealed to the owner.
        models: By digest of what ran.
        recompute: Computes; only tests have another.
    """

    seed: bytes
    samples: int
    since: int
    open: Open
    models: Mapping[bytes, AuditedModel]
    recompute: Recompute = recompute


@dataclass(slots=True)
class Audit:
    """What came of it.

    Attributes:
        verdicts: One for each receipt that was chosen, in their order.
        candidates: Receipts among which was chosen; ``removed`` those whose input the
            quota had removed.
        absent: Digests of models that ran and are not at hand: of how many receipts.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    candidates: int = 0
    removed: int = 0
    absent: Counter[bytes] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        """Whether everything that could be computed was right, and something could."""
        results = [verdict.result for verdict in self.verdicts]
        computed = any(result in {"exact", "close"} for result in results)
        return computed and not BAD.intersection(results)


def perform_audit(
    evidence: Evidence, demand: Demand, progress: Callable[[int, int], None]
) -> Audit:
    """Choose, open, compute anew, conclude.

    Args:
        evidence: The log, and what was kept.
        demand: What is asked.
        progress: Told how many receipts are done, and of how many.

    Raises:
        DeviceError: ``audit``: nothing was kept.
        AgentError: The log is damaged, or a model killed the child.
    """
    audit = Audit()
    chosen = _choose(evidence, demand, audit)
    verdicts: dict[int, Verdict] = {}
    asked: dict[bytes, list[Inference]] = defaultdict(list)

    def done() -> None:
        progress(len(verdicts), len(chosen))

    for seq in chosen:
        receipt = evidence.prove(seq)
        found = _open(evidence, demand, receipt)
        if isinstance(found, Verdict):
            verdicts[seq] = found
            if found.result == "skipped":
                audit.absent[receipt.model] += 1
            done()
        else:
            asked[receipt.model].append(_inference(seq, found))
    for digest, inferences in asked.items():
        model = demand.models[digest]
        for computed in demand.recompute(_question(model, digest, inferences), done):
            verdicts[computed.seq] = conclude(computed)
            done()
    audit.verdicts = [verdicts[seq] for seq in chosen]
    return audit


def _choose(evidence: Evidence, demand: Demand, audit: Audit) -> list[int]:
    """Return the receipts that are asked for.

    Raises:
        DeviceError: ``audit``: nothing was kept.
    """
    checkpoint = evidence.checkpoint
    first = max(demand.since, evidence.first)
    flagged = [
        receipt.seq
        for receipt in evidence.receipts(first, checkpoint.size)
        if receipt.flags & KEPT and not receipt.flags & EVENT
    ]
    there = evidence.kept(first, checkpoint.size)
    if not flagged or not there:
        raise DeviceError(
            f"of the receipts {first} to {checkpoint.size - 1} no input is kept",
            reason=Reason.AUDIT,
            todo="Set audit.owner_key and audit.keep_one_in on the board.",
        )
    candidates = [seq for seq in flagged if seq >= there[0]]
    audit.candidates, audit.removed = len(candidates), len(flagged) - len(candidates)
    return choose(candidates, demand.seed, checkpoint.root, demand.samples)


def _open(evidence: Evidence, demand: Demand, receipt: Receipt) -> KeptSample | Verdict:
    """Return what was kept of a receipt, or why that says enough."""
    seq = receipt.seq
    sealed = evidence.sealed(seq)
    if sealed is None:
        return _absent(evidence, receipt)
    context = seal_context(whose(evidence), receipt.pipeline, seq)
    plain = demand.open(sealed, context)
    if plain is None:
        return bad(seq, "unopened", "it was not sealed to this key for this receipt")
    try:
        sample = parse_kept(plain)
    except ValueError as err:
        return bad(seq, "unbound", str(err)[:300])
    if not fits_receipt(sample, receipt):
        return bad(seq, "unbound", "hashes of what was kept are not the receipt's")
    if receipt.model not in demand.models:
        return bad(seq, "skipped", f"model {receipt.model.hex()[:12]} is not at hand")
    return sample


def _absent(evidence: Evidence, receipt: Receipt) -> Verdict:
    """Return what it means that an input is not there."""
    if evidence.says_not_kept(receipt):
        why = "the board could not keep it, as its log says"
        return bad(receipt.seq, "not_kept", why)
    return bad(receipt.seq, "missing", "the receipt says that its input was kept")


def _inference(seq: int, sample: KeptSample) -> Inference:
    """Return what the child is told."""
    return Inference(seq, sample.inputs, sample.outputs, sample.executor, sample.cpu)


def _question(
    model: AuditedModel, digest: bytes, inferences: Sequence[Inference]
) -> Question:
    """Return what the child is asked."""
    return Question(
        model.bundle.raw_manifest,
        model.variant,
        model.content,
        digest.hex(),
        bytes(model.bundle.golden),
        tuple(inferences),
    )
