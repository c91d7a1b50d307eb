"""The command line of tuf-conformance, on top of our own updater, fetcher and floors.

The suite (github.com/theupdateframework/tuf-conformance) drives a client through
``init``, ``refresh`` and ``download`` and looks at exit codes, at the requests that
arrive, and at the files in the metadata directory. What a board keeps besides those
(its provisioned root, its notes) lies beside that directory: the suite takes every file
in it for a role.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from tuf.api.metadata import TargetFile

from agent.errors import AgentError, BundleRefusedError
from agent.trust.download import Download, Signed, SmallContent
from agent.trust.durable import write_durably
from agent.trust.gate import FloorGate
from agent.trust.http_fetcher import HttpFetcher
from agent.trust.notes import Remembered
from agent.trust.refusals import reasons_for, reasons_for_root, reasons_for_target
from agent.trust.transport import Transport, parse_address
from agent.trust.updater import DurableUpdater


class FileNotes:
    """Notes in one JSON file; implements ``agent.trust.notes.Notes``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved under a key."""
        if not self._path.is_file():
            return None
        saved: str | None = json.loads(self._path.read_text()).get(key)
        return None if saved is None else saved.encode()

    def save_note(self, key: str, value: bytes) -> None:
        """Save a value."""
        notes = json.loads(self._path.read_text()) if self._path.is_file() else {}
        write_durably(self._path, json.dumps(notes | {key: value.decode()}).encode())


class Client:
    """One call of the command."""

    def __init__(self, metadata_dir: Path) -> None:
        self._metadata = metadata_dir
        self._own = metadata_dir.with_name(f"{metadata_dir.name}-own")

    def init(self, trusted_root: Path) -> None:
        """Provision the first root."""
        self._own.mkdir(exist_ok=True)
        write_durably(self._own / "root.json", trusted_root.read_bytes())

    def show_root(self) -> None:
        """Put the newest root where the suite looks for it."""
        history = self._metadata / "root_history"
        known = sorted(
            history.glob("*.root.json"), key=lambda p: int(p.name.split(".")[0])
        )
        newest = known[-1] if known else self._own / "root.json"
        write_durably(self._metadata / "root.json", newest.read_bytes())

    def refresh(self, metadata_url: str) -> tuple[DurableUpdater, HttpFetcher]:
        """Verify the newest metadata as a board does."""
        address = parse_address(metadata_url.rstrip("/").removesuffix("/metadata"))
        fetcher = HttpFetcher(address.url, Transport())
        root = (self._own / "root.json").read_bytes()
        notes = FileNotes(self._own / "notes.json")
        gate = FloorGate(Remembered.of(notes, root), build_time=0.0)
        gate.now_s = time.time()  # noqa: TID251 - a command is its own composition root
        with reasons_for_root():
            updater = DurableUpdater(self._metadata, fetcher, root, gate)
        with reasons_for(updater):
            updater.refresh()
            gate.learn(updater)
        return updater, fetcher

    def download(self, metadata_url: str, names: Sequence[str], target: Path) -> None:
        """Verify the newest metadata, and fetch targets that are not here yet."""
        updater, fetcher = self.refresh(metadata_url)
        for name in names:
            with reasons_for(updater):
                found = updater.get_targetinfo(name)
            if found is None:
                raise BundleRefusedError(
                    f"{name} is not there", reason="missing_target"
                )
            if updater.find_cached_target(found, str(target / quote(name, ""))) is None:
                consistent = bool(updater.root.consistent_snapshot)
                content = fetch(found, fetcher, consistent=consistent)
                write_durably(target / quote(name, ""), content)


def fetch(found: TargetFile, fetcher: HttpFetcher, *, consistent: bool) -> bytes:
    """Fetch one target as ``TrustedRepository`` fetches small ones."""
    digest = next(iter(found.hashes.values()))
    folder, slash, last = found.path.rpartition("/")
    served = f"{folder}{slash}{digest}.{last}" if consistent else found.path
    signed = Signed(found.path, f"targets/{served}", found.length, found.hashes)
    content = SmallContent()
    with reasons_for_target(found.path):
        Download(fetcher, signed, content.write, content).run()
    return content.content()


def main(arguments: Sequence[str]) -> int:
    """Run one command; return 0 or 1."""
    parser = argparse.ArgumentParser(prog="tuf-client")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url", default="")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    given = parser.parse_args(arguments)
    client = Client(given.metadata_dir)
    try:
        if given.command == "init":
            client.init(given.trusted_root)
        elif given.command == "refresh":
            client.refresh(given.metadata_url)
        else:
            client.download(given.metadata_url, given.target_name, given.target_dir)
    except AgentError as err:
        parser.exit(1, f"tuf-client: {err} [{err.reason}]\n")
    finally:
        client.show_root()
    return 0
