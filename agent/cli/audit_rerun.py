"""``tinyward audit rerun``: compute some of a board's inferences anew, and compare."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.audit_board import Where, board_options, link_to
from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError

if TYPE_CHECKING:
    from agent.audit.verify import Asked
    from agent.cli.rerun import Audit, AuditedModel, Open
    from agent.cli.rerun_evidence import Evidence, Progress
    from agent.core.checkpoint import Checkpoint

_PATH = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MIN_SEED_BYTES = 8  # nobody tries 2**64 seeds to be asked for what suits him
HELP = """Compute inferences of a board's log anew, and compare with its receipts.

\b
  tinyward audit rerun --log card/audit --vkey board.vkey \\
      --owner-key owner-keys --bundle kws-8.bundle --samples 64
  tinyward audit rerun --board pi-0042 --vkey board.vkey ... over TLS

The board keeps one in so many inputs, sealed to you, the owner (audit.owner_key,
audit.keep_one_in). Of those before the newest checkpoint some are drawn by the seed:
let nobody know it before the checkpoint is signed. Each is opened, held against its
receipt, the receipt against the log, and its answer against what a locked process
computes from your own copy of the model: the same to the bit where this machine
computes as the board does, else as near as kernels agree on the golden samples.

\b
Exit 0: all are right. Exit 1: one is not (reason `audit`), or none could be computed.

It finds other models, wrong kernels and failing memory. Whoever controls a board down
to its worker knows which inputs are kept, and can answer those rightly."""


class Options(Where):
    """Options of the command."""

    log: Path | None
    kept: Path | None
    vkey: str
    owner_key: Path
    passphrase_files: tuple[Path, ...]
    bundle: tuple[Path, ...]
    tflite: tuple[Path, ...]
    samples: int
    since: int
    seed: str
    as_json: bool


@click.command(help=HELP, short_help="Compute kept inferences anew, and compare.")
@click.option("--log", type=_PATH, help="A log's folder.  [default: ask a board]")
@click.option("--kept", type=_PATH, help="Kept inputs.  [default: audit-kept beside]")
@board_options
@click.option("--vkey", required=True, help="What `audit key` printed, or its file.")
@click.option(
    "--owner-key",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="The owner's directory of keys, or a private sealing key's file.",
)
@click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=_FILE,
    help="File with the passphrase of the directory; without it you are asked.",
)
@click.option(
    "--bundle", type=_FILE, multiple=True, required=True, help="What the board ran."
)
@click.option(
    "--tflite", type=_FILE, multiple=True, help="The board's own marked copy of one."
)
@click.option(
    "--samples", type=click.IntRange(1, 100_000), default=64, show_default=True
)
@click.option("--since", type=click.IntRange(0), default=0, help="Not those before it.")
@click.option("--seed", default="", help="Hex; drawn and shown if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(**options: Unpack[Options]) -> None:
    """Verify, choose, compute, conclude.

    Raises:
        SettingsError: An option does not fit (``settings``).
        AgentError: The log is not what was signed, or a model does not run here.
        DeviceError: ``audit``: an inference is not what its receipt says.
    """
    from agent.cli.rerun import Demand, perform_audit
    from agent.cli.rerun_view import RerunView

    seed = _seed(options["seed"])
    models = _models(options["bundle"], options["tflite"])
    opener = _opener(options["owner_key"], options["passphrase_files"])
    asked = _asked(options["vkey"])
    demand = Demand(seed, options["samples"], options["since"], opener, models)
    with RerunView() as view:
        evidence = _evidence(options, asked, view.verified)
        audit = perform_audit(evidence, demand, view.computed)
    _tell(audit, evidence.checkpoint, seed, as_json=options["as_json"])


def _evidence(options: Options, asked: "Asked", progress: "Progress") -> "Evidence":
    """Return the log that options name, verified: a folder, or a board that runs.

    Raises:
        AgentError: It is not what was signed, or the board cannot be asked.
    """
    from agent.cli.rerun_board import BoardEvidence
    from agent.cli.rerun_evidence import FolderEvidence

    if (log := options["log"]) is not None:
        kept = options["kept"] or log.parent / "audit-kept"
        return FolderEvidence(log, kept, asked, progress)
    link = link_to(options)
    whole = (asked.public, asked.board, options["since"])
    return BoardEvidence(link, *whole, progress)


def _tell(
    audit: "Audit", checkpoint: "Checkpoint", seed: bytes, *, as_json: bool
) -> None:
    """Print what came of it.

    Raises:
        DeviceError: ``audit``.
    """
    from agent.cli.rerun_view import print_audit, print_json

    show = print_json if as_json else print_audit
    show(audit, checkpoint, seed)
    if not audit.is_good:
        raise DeviceError(_complaint(audit), reason=Reason.AUDIT)


def _complaint(audit: "Audit") -> str:
    """Say what was found."""
    wrong = [it for it in audit.verdicts if it.reason]
    if not wrong:
        return "no inference could be computed: name the bundles that ran, --bundle"
    seqs = ", ".join(str(it.seq) for it in wrong[:5])
    more = ", ..." if len(wrong) > 5 else ""
    return f"{len(wrong)} of {len(audit.verdicts)} are not right: {seqs}{more}"


def _seed(text: str) -> bytes:
    """Return the seed that is named, or another.

    Raises:
        SettingsError: ``settings``: it is no hex, or short enough to be guessed.
    """
    if not text:
        return secrets.token_bytes(32)
    try:
        seed = bytes.fromhex(text)
    except ValueError as err:
        raise _wrong(f"--seed: {err}", "Give hexadecimal digits.") from err
    if not MIN_SEED_BYTES <= len(seed) <= 255:
        raise _wrong(
            f"--seed: {len(seed)} bytes",
            f"Give {2 * MIN_SEED_BYTES} hexadecimal digits at least.",
        )
    return seed


def _asked(key: str) -> "Asked":
    """Return by which key the log is verified; its name says whose that has to be.

    Raises:
        SettingsError: ``settings``: it is no key.
    """
    from agent.audit.key import parse_public
    from agent.audit.verify import Asked
    from agent.core.checkpoint import board_of
    from agent.errors import BundleRefusedError

    try:
        is_key = key.count("+") >= 2
        text = key if is_key else Path(key).read_text(encoding="utf-8")
        return Asked(parse_public(text.strip()), board_of(text.partition("+")[0]))
    except (OSError, UnicodeDecodeError, BundleRefusedError) as err:
        todo = "`tinyward audit key` on the board prints it."
        raise _wrong(f"--vkey: {err}", todo) from err


def _models(
    bundles: tuple[Path, ...], copies: tuple[Path, ...]
) -> dict[bytes, "AuditedModel"]:
    """Return the models that are at hand, by their digests.

    Raises:
        SettingsError: A file cannot be read, or belongs to no bundle.
        BundleRefusedError: One is no bundle.
    """
    from hashlib import sha256

    from agent.cli.inspect import read_limited
    from agent.cli.rerun import AuditedModel
    from agent.settings import UpdateSettings
    from agent.trust.bundle import open_bundle

    max_bytes = int(UpdateSettings().max_bundle_mb * 1_000_000)
    models: dict[bytes, AuditedModel] = {}
    for path in bundles:
        bundle = open_bundle(read_limited(path, max_bytes), max_bytes=max_bytes)
        for variant in bundle.manifest.variants:
            content = bytes(bundle.variant_bytes(variant.name))
            model = AuditedModel(bundle, variant.name, content)
            models[sha256(content).digest()] = model
    for path in copies:
        content = read_limited(path, max_bytes)
        # A copy differs in its head alone: of the variants it is the one as long.
        like = [it for it in models.values() if len(it.content) == len(content)]
        if not like:
            todo = "Name the bundle that it is a copy of, too: --bundle."
            raise _wrong(f"--tflite: {path} is as long as no variant", todo)
        copy = AuditedModel(like[0].bundle, like[0].variant, content)
        models[sha256(content).digest()] = copy
    return models


def _opener(key: Path, passphrases: tuple[Path, ...]) -> "Open":
    """Return what opens what was sealed to the owner.

    Raises:
        SettingsError: The passphrase does not open the key.
        DeviceError: ``seal_key``: the file cannot be used.
    """
    from cryptography.exceptions import InvalidTag

    if key.is_dir():
        from agent.cli.passphrase import ask_passphrases
        from agent.publish.seal_owner import open_owner

        unwrap = open_owner(*ask_passphrases([key], passphrases)[0])
    else:
        from agent.trust.seal_key import load_seal_key

        unwrap = load_seal_key(key).unwrap

    def opener(sealed: bytes, context: bytes) -> bytes | None:
        try:
            return unwrap(sealed, context)
        except (InvalidTag, SettingsError):
            return None

    return opener


def _wrong(what: str, todo: str) -> SettingsError:
    """Return the error for an option that does not fit."""
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
