"""``tinyward repo add --delta-from``: make deltas, say what came of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from agent.cli.plain_text import bytes_text

if TYPE_CHECKING:
    from agent.core.manifest import Manifest
    from agent.core.targets import SignedTarget
    from agent.publish.deltas import Weighed

BAR_WIDTH = 26  # with the description and the time 80 columns suffice


def check_ways(
    repository: Path, added: Sequence["Manifest"], versions: Sequence[int]
) -> None:
    """Check, before anything is staged, that deltas have something to lead from.

    Raises:
        SettingsError: One would lead from a bundle to itself.
        BundleRefusedError: ``missing_target``, ``revoked`` or ``digest``: a version is
            not listed, may not run, or is damaged.
        DeviceError: The repository cannot be read.
    """
    from agent.publish.deltas import check_known, check_way

    coming = {(manifest.model, manifest.version) for manifest in added}
    for manifest in added:
        for version in versions:
            check_way(manifest.model, version, manifest.version)
            if (manifest.model, version) not in coming:
                check_known(repository, manifest.model, version)


def add_deltas(
    repository: Path, target: "SignedTarget", versions: Sequence[int]
) -> None:
    """Stage the deltas that lead to a bundle from these versions of its model.

    Raises:
        SettingsError: One would lead from a bundle to itself.
        BundleRefusedError: A version is not listed, is revoked, or is damaged.
        DeviceError: The repository cannot be read or written.
    """
    from agent.publish.deltas import stage_delta

    for version in versions:
        with Bar(f"delta from {version}", 2 * target.length) as bar:
            weighed = stage_delta(repository, target, version, bar.show)
        click.echo(_outcome(target, weighed))


def _outcome(target: "SignedTarget", weighed: "Weighed") -> str:
    """Say whether a delta was staged, and what it spares."""
    name = f"delta {target.fields.model} {weighed.from_version} to "
    name += str(target.fields.version)
    length = bytes_text(weighed.bytes)
    if weighed.staged is not None:
        share = weighed.bytes / target.length
        return f"staged {name} ({length}, {share:.1%} of the bundle)"
    share = weighed.bytes / weighed.compressed_bytes
    return (
        f"no {name}: its {length} are {share:.0%} of the compressed bundle, which "
        "spares too little; boards fetch all of it"
    )


class Bar:
    """A bar on a terminal's standard error; elsewhere nothing."""

    def __init__(self, what: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._progress.stop()

    def show(self, done: int) -> None:
        """Draw how many bytes are done."""
        self._progress.update(self._task, completed=done)
