"""``tinyward repo``: keep a TUF repository of bundles as plain files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.passphrase import ask_passphrases, passphrase_option
from agent.cli.repo_assign import assign, pause, percent
from agent.cli.repo_export import export
from agent.cli.repo_options import (
    Directory,
    keys_option,
    open_keyless,
    open_with_keys,
    read_clock,
    repository_argument,
)
from agent.cli.repo_timestamp import timestamp
from agent.cli.repo_withdraw import remove, revoke
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, SettingsError

if TYPE_CHECKING:
    from agent.core.manifest import Manifest
    from agent.trust.statements import PublicKey

_EXPLAINED = """Keep a TUF repository of bundles as plain files.

\b
The Update Framework (TUF) in ten lines:
 1. A repository is files. Whoever serves or copies them need not be trusted.
 2. `root` says which keys may sign what. Boards get the first root.json at
    installation and follow every later one, signed by old and new keys.
 3. `targets` lists the bundles, with length and digest. Its keys are offline.
 4. A threshold of 2 means: one stolen key signs nothing.
 5. `fleet` says which group runs which version. Whoever steals its key can
    choose among signed versions, and publish none.
 6. `snapshot` says which versions of these belong together: no mixing.
 7. `timestamp` says which snapshot is newest, and expires soon: no freezing.
 8. Boards never go back to an older version of any of them.
 9. `add` and `assign` stage without a key. `publish` signs; it or `timestamp`
    has to run every 7 days, or boards stop updating (models keep running).
10. Stolen key? `rotate ROLE` makes new ones that sign again what REPO lists:
    look at `status` first, restore a copy if it lists what you never added.
"""


class KeyCounts(TypedDict):
    """Options of ``init``: keys and thresholds, None where another one decides."""

    threshold: int
    root_keys: int | None
    targets_keys: int | None
    targets_threshold: int | None


# As in agent.publish.roles, whose import takes longer than help or completion may.
ROLE_NAMES = ("root", "targets", "fleet", "snapshot", "timestamp")


@click.group("repo", help=_EXPLAINED)
def command() -> None:
    """Group the commands below."""


@command.command()
@click.argument("repository", metavar="REPO", type=Directory(exists=False))
@keys_option
@click.option(
    "--threshold",
    default=1,
    show_default=True,
    help="How many keys of root and of targets have to sign.",
)
@click.option("--root-keys", type=int, help="Keys of root.  [default: threshold]")
@click.option("--targets-keys", type=int, help="Keys of targets.  [default: threshold]")
@click.option(
    "--targets-threshold", type=int, help="For targets, instead of --threshold."
)
@passphrase_option
def init(
    repository: Path,
    keys: Sequence[Path],
    passphrase_files: Sequence[Path],
    **counts: Unpack[KeyCounts],
) -> None:
    """Make a repository and its keys, and publish it empty.

    With several --keys, the keys of root and targets are shared out among them.
    """
    from agent.publish.repository import KeyPlan, default_keys, init_repository

    of_root, of_targets = counts["threshold"], counts["targets_threshold"]
    of_targets = of_root if of_targets is None else of_targets
    root_keys, targets_keys = counts["root_keys"], counts["targets_keys"]
    plan = KeyPlan(
        root_keys=of_root if root_keys is None else root_keys,
        root_threshold=of_root,
        targets_keys=of_targets if targets_keys is None else targets_keys,
        targets_threshold=of_targets,
    )
    places = keys or [default_keys(repository)]
    first, *others = ask_passphrases(places, passphrase_files, new=True)
    init_repository(repository, *first, now=read_clock(), plan=plan, holders=others)
    where = " and ".join(str(place) for place in places)
    click.echo(f"made {repository}, its keys are in {where}")
    click.echo(f"give boards {repository / 'metadata' / '1.root.json'} as their root")
    click.echo("keep the keys of root and targets offline, and a copy of all of them")


@command.command()
@repository_argument
@click.argument(
    "bundles",
    metavar="BUNDLE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option("--hardware", multiple=True, help="Only for this hardware (repeatable).")
@click.option("--min-agent", default="", help="Oldest agent that may run it: 1.2.3.")
@click.option(
    "--delta-from",
    "delta_from",
    metavar="VERSION",
    type=click.IntRange(min=1),
    multiple=True,
    help="Also a delta for boards that hold this version (repeatable).",
)
@click.option(
    "--provenance-key",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public key or certificate that has to have signed each provenance.json.",
)
def add(
    repository: Path,
    bundles: Sequence[Path],
    hardware: Sequence[str],
    min_agent: str,
    delta_from: Sequence[int],
    provenance_key: Path | None,
) -> None:
    """Stage bundles; `publish` signs them.

    With --delta-from, boards that hold that version of the same model fetch what
    changed instead of the whole bundle, which stays there for all others. A delta that
    spares too little is not published.

    What a bundle says of its origin has to be about its own variants; with
    --provenance-key it has to be there, and signed (DSSE).

    A folder that `tinyward seal` has made is added with its envelopes. Added again
    once it is published, its new envelopes are taken in, and nothing has to be signed.
    """
    from agent.cli.provenance_check import read_provenance_key
    from agent.cli.repo_delta import add_deltas, check_ways
    from agent.cli.repo_sealed import add_sealed, check_asked, is_sealed_folder

    opened = open_keyless(repository)
    sealed = [path for path in bundles if is_sealed_folder(path)]
    if sealed:
        check_asked(delta_from, provenance_key)
    bundles = [path for path in bundles if path not in sealed]
    key = read_provenance_key(provenance_key)
    read = [(content, _manifest(path, content, key)) for path, content in _all(bundles)]
    check_ways(repository, [manifest for _, manifest in read], delta_from)
    for content, manifest in read:
        target = opened.add(
            content,
            model=manifest.model,
            version=manifest.version,
            hardware=hardware,
            min_agent=min_agent,
        )
        click.echo(f"staged {target.path} ({target.length} bytes)")
        add_deltas(repository, target, delta_from)
    for folder in sealed:
        add_sealed(opened, folder, hardware, min_agent)


def _all(bundles: Sequence[Path]) -> list[tuple[Path, bytes]]:
    """Read all bundles before the first is staged."""
    return [(path, _read(path)) for path in bundles]


def _manifest(path: Path, content: bytes, key: "PublicKey | None") -> "Manifest":
    """Return what a bundle says about itself, and check what it says of its origin.

    Raises:
        BundleRefusedError: It is none, or a damaged one; the message names the file.
    """
    from agent.cli.provenance_check import check_published
    from agent.cli.repo_sealed import check_unmarked
    from agent.trust.bundle import open_bundle

    try:
        bundle = open_bundle(content, max_bytes=len(content))
        check_published(bundle, key)
        check_unmarked(bundle.manifest)
        return bundle.manifest  # noqa: TRY300 - the steps before it are the check
    except BundleRefusedError as err:
        what = f"{path}: {err}"
        raise BundleRefusedError(what, reason=err.reason, todo=err.todo) from err


@command.command(short_help="Sign what is staged, renew what would expire.")
@repository_argument
@keys_option
@passphrase_option
def publish(
    repository: Path, keys: Sequence[Path], passphrase_files: Sequence[Path]
) -> None:
    """Sign what is staged; with nothing staged, renew what would expire."""
    opened = open_with_keys(repository, keys, passphrase_files)
    opened.publish(read_clock(), told=click.echo)
    click.echo(f"published {repository}")


@command.command()
@repository_argument
@click.argument("role", type=click.Choice(ROLE_NAMES))
@keys_option
@passphrase_option
def rotate(
    repository: Path,
    role: str,
    keys: Sequence[Path],
    passphrase_files: Sequence[Path],
) -> None:
    """Replace the keys of a ROLE by new ones, and publish.

    The new keys sign what REPO lists now; each bundle and group is named. Boards
    forget which versions and times the old keys made them remember. Old key files
    stay where they are; nothing needs them any more.
    """
    opened = open_with_keys(repository, keys, passphrase_files)
    opened.rotate(role, read_clock(), told=click.echo)
    click.echo(f"published {repository} with new keys for {role}")


@command.command()
@repository_argument
@keys_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def status(repository: Path, keys: Sequence[Path], *, as_json: bool) -> None:
    """Show roles, bundles, groups, and what waits for a signature."""
    from agent.cli.repo_status import render_json, show_tables
    from agent.publish.repository import Repository, default_keys

    first, *others = [(place, b"") for place in keys or [default_keys(repository)]]
    found = Repository.open(repository, *first, holders=others).status()
    if as_json:
        click.echo(render_json(found))
    else:
        show_tables(found, read_clock())


def _read(path: Path) -> bytes:
    """Read a file the user named."""
    try:
        return path.read_bytes()
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Name a bundle made by `tinyward pack` that you may read.",
        ) from err


for _command in (assign, pause, percent, revoke, remove, timestamp, export):
    command.add_command(_command)
