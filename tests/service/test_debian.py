"""Where packages come from, and what a killed run leaves; and no root needed."""

import fcntl
from pathlib import Path

import pytest

from tests.service.debian import PREFIX, AptSource, apt_source, sweep

STANZA = """\
# made by an installer
Types: deb deb-src
URIs: {mirror} {mirror}/second
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: {mirror}/security
Suites: bookworm-security
"""
LINES = """\
# deb {mirror}/commented out main
deb-src {mirror} trixie main
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] {mirror} trixie main contrib
deb {mirror}/security trixie-security main
"""
MIRROR = "https://mirror.example/debian"


@pytest.mark.parametrize(
    ("name", "text", "suite"),
    [
        ("sources.list.d/debian.sources", STANZA, "bookworm"),
        ("sources.list", LINES, "trixie"),
        ("sources.list.d/debian.list", LINES, "trixie"),
        ("sources.list", f"deb {MIRROR} sid main\n", "sid"),
    ],
)
def test_the_first_source_of_packages_is_taken(
    tmp_path: Path, name: str, text: str, suite: str
) -> None:
    """Both styles of sources.list(5), comments and sources of sources left out."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text.format(mirror=MIRROR), encoding="utf-8")
    (tmp_path / "sources.list.d" / "other.save").write_text("deb x y\n")
    assert AptSource(MIRROR, suite) == apt_source(tmp_path)


def test_a_machine_without_sources_is_told_so(tmp_path: Path) -> None:
    """There is nothing to guess: the error names the folder."""
    with pytest.raises(LookupError, match=str(tmp_path)):
        apt_source(tmp_path)


def test_only_what_nobody_holds_is_swept(tmp_path: Path) -> None:
    """The folder of a killed run goes; the one of a run beside this one stays."""
    left, held, other = (
        tmp_path / name for name in (f"{PREFIX}left", f"{PREFIX}held", "other")
    )
    for folder in (left, held, other):
        (folder / "root").mkdir(parents=True)
        (folder / "lock").touch()
    with (held / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(tmp_path)
    assert {held, other} == set(tmp_path.iterdir())
