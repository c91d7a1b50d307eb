"""``tinyward run``: the daemon with the pipelines of a settings file."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.places import (
    check_files,
    control_socket,
    read_file,
    read_raw,
    read_settings,
    state_directory,
)
from agent.core.reasons import Reason
from agent.errors import AgentError, SettingsError
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.board.notify import Notifier

# A table is rewritten, row by row, on a card that stalls for seconds now and then.
MIGRATION_S = 120.0


@click.command(short_help="Run the daemon with the pipelines of a settings file.")
@click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/tinyward/agent.toml"),
    show_default=True,
    help="The settings file; `tinyward check FILE` explains it.",
)
def command(config: Path) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Each pipeline of the settings gets a worker process that answers its source with a
    verified model. Models come from the TUF repository that [update] names, survive
    restarts and power loss in the state directory, and are exchanged without losing a
    sample. Metrics and health are served on [local] listen: /metrics, /healthz,
    /readyz. Logs go to standard error, predictions where the sinks say.

    SIGHUP has the file read again: what can be applied is, and the log names what needs
    a restart. A file that is wrong changes nothing.

    Exit codes: 0 after SIGTERM or Ctrl-C, 1 for a failure, 2 for wrong settings.
    """
    from agent.board.notify import Notifier

    notify = Notifier.take(os.environ, os.getpid())
    try:
        _run_until_stopped(config, notify)
    except AgentError as err:
        # For `systemctl status`, which shows it also of a unit that has failed.
        notify.status(f"{err} [{err.reason}] {err.todo}")
        raise


def _run_until_stopped(config: Path, notify: "Notifier") -> None:
    """Read the settings and run the daemon by them.

    Raises:
        AgentError: It cannot start, or ended for a reason that somebody can mend.
    """
    # Before anything is read: whoever changes the file later is heard after the start.
    hung_up = _notice_hang_up()
    settings = read_settings(config)
    root = read_root(settings)
    check_files(settings)
    _start_logs(settings.log_level)
    if settings.seal.key or settings.seal.credential:
        from agent.board.secrecy import keep_memory_private

        keep_memory_private()  # before the first child: they inherit most of it
    try:
        asyncio.run(_run(config, settings, root, notify, hung_up))
    except* AgentError as group:
        raise _first(group) from None


async def _run(
    config: Path,
    settings: Settings,
    root: bytes,
    notify: "Notifier",
    hung_up: Callable[[], bool],
) -> None:
    """Open the state directory and run the daemon on it."""
    from agent.daemon import Daemon
    from agent.store import Store

    def migrating() -> None:
        notify.extend(MIGRATION_S)
        notify.status("bringing the state of an older agent to this one's schema")

    state_dir = state_directory(settings)
    store = Store.open(
        state_dir,
        quota_bytes=int(settings.update.quota_mb * 1_000_000),
        clock=time.time,  # noqa: TID251 - the daemon's clock, on its way to the store
        migrating=migrating,
    )
    try:
        daemon = Daemon(
            settings,
            store,
            state_dir,
            root=root,
            socket=control_socket(settings),
            announce=_announce,
            notify=notify,
            read_settings=partial(read_raw, config),
        )
        # From here on it is asked itself; what came before is asked now.
        signal.signal(signal.SIGHUP, lambda _number, _frame: daemon.ask_to_reload())
        if hung_up():
            daemon.ask_to_reload()
        await daemon.run()
    finally:
        store.close()


def _notice_hang_up() -> Callable[[], bool]:
    """Let SIGHUP, which ends a process, only be noticed until the daemon takes it.

    A function and not SIG_IGN: programs that are started would inherit that.
    """
    noticed: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: noticed.append(number))
    return lambda: bool(noticed)


def read_root(settings: Settings) -> bytes:
    """Read the provisioned root.json; empty where the settings name none.

    Raises:
        SettingsError: ``settings``: it cannot be read.
    """
    if not settings.update.root:
        return b""
    path = Path(settings.update.root).expanduser()
    try:
        return read_file(path)
    except OSError as err:
        raise SettingsError(
            f"update.root: {path} cannot be read: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Copy metadata/1.root.json of the repository to this path.",
        ) from err


def _start_logs(level: str) -> None:
    """Send events to standard error, for journald where it listens."""
    from agent.telemetry.journal import JournalOutput
    from agent.telemetry.logs import is_journal, start_logging

    journal = is_journal(sys.stderr, os.environ)
    through = JournalOutput if journal else None
    start_logging(level, sys.stderr, journal=journal, through=through)


def _announce(where: str) -> None:
    """Say where the listener is: one line for people, on standard error."""
    click.echo(f"listening on {where}", err=True)


def _first(group: BaseExceptionGroup[AgentError]) -> AgentError:
    """Return the first error of ours in a group of errors."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, AgentError)  # noqa: S101 - the group holds nothing else
    return first
