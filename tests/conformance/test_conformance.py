"""tuf-conformance, where it is at hand, against our updater, fetcher and floors.

The suite is no package on PyPI. Check it out (v2.4.0) and name the checkout in
``TINYWARD_TUF_CONFORMANCE``, or install it; its test of time needs ``faketime``.
"""

import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import find_tool
from tests.fakes.bundle_factory import make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.toxic_server import ToxicServer

CLIENT = Path(__file__).with_name("tuf-client")
PACKAGE = "tuf_conformance"
START = time.time()  # noqa: TID251 - the client reads the real clock
SUITE_S = 1500  # a minute on a quiet PC; it starts a Python for each command


def find_suite() -> Path:
    """Return the folder of the suite's tests, or skip."""
    named = os.environ.get("TINYWARD_TUF_CONFORMANCE")
    if named:
        return Path(named) / PACKAGE
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        pytest.skip("no tuf-conformance (TINYWARD_TUF_CONFORMANCE names its checkout)")
    return Path(found.submodule_search_locations[0])


@pytest.mark.timeout(SUITE_S + 60)
def test_the_whole_suite_passes_without_expected_failures() -> None:
    """Every test passes; there is no list of exceptions beside the client."""
    suite = find_suite()
    find_tool("faketime")
    assert not CLIENT.with_suffix(".xfails").exists()
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *(str(suite), "--entrypoint", f"{sys.executable} {CLIENT}"),
    ]
    done = subprocess.run(
        command,
        cwd=suite.parent,
        capture_output=True,
        text=True,
        timeout=SUITE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert re.fullmatch(r"\d+ passed.* in .*", summary)
    assert "xfail" not in summary
    assert "skipped" not in summary


def run(*arguments: object) -> int:
    """Run the client; return its exit code."""
    command = [sys.executable, str(CLIENT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_the_entry_point_speaks_the_suites_command_line(tmp_path: Path) -> None:
    """Init, refresh and download leave the files that the suite looks for."""
    made = make_repository(tmp_path / "repo", {("kws", 1): good_bundle(1)}, now=START)
    metadata, targets = tmp_path / "metadata", tmp_path / "targets"
    metadata.mkdir()
    targets.mkdir()
    (tmp_path / "root.json").write_bytes(made.root)
    with ToxicServer(made.path) as server:
        common = [
            "--metadata-dir",
            metadata,
            "--metadata-url",
            f"{server.url}/metadata",
        ]
        where = ["--target-dir", targets, "--target-base-url", f"{server.url}/targets"]
        name = "models/kws/1.bundle"
        assert run("--metadata-dir", metadata, "init", tmp_path / "root.json") == 0
        assert server.asked == []
        assert run(*common, "refresh") == 0
        assert run(*common, "--target-name", name, *where, "download") == 0
        assert run(*common, "--target-name", "absent", *where, "download") == 1
    files = {path.name for path in metadata.glob("*.json")}
    assert files >= {"root.json", "timestamp.json", "snapshot.json", "targets.json"}
    assert [path.read_bytes() for path in targets.iterdir()] == [good_bundle(1)]
