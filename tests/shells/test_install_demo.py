"""What a fresh installation runs: its settings, and the demo that was signed for it."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.workshop import Workshop
from agent.core.flow import CountSink, FilesSource
from agent.install.places import (
    DEMO_REPOSITORY,
    DEMO_ROOT,
    DEMO_STREAM,
    FLEET_ROOT,
    STATE,
    Places,
)
from agent.install.settings_file import Asked, render_settings
from agent.settings import parse_settings
from agent.trust.bundle import open_bundle
from agent.trust.client import TrustedRepository
from tests.fakes.memory_notes import MemoryNotes

MADE = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
YEARS_S = 2 * 365 * 86_400.0
WORDS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a demo that was made long ago."""
    root = tmp_path_factory.mktemp("machine")
    (root / "run").mkdir()
    folder = root / "demo"
    folder.mkdir()
    Workshop(Places(root), Path("/nowhere"), MADE).make_demo(folder)
    assert list((root / "run").iterdir()) == []
    return folder


@pytest.mark.parametrize("now", [MADE, MADE + YEARS_S, 0.0])
def test_the_demo_is_believed_whatever_the_clock_says(
    demo: Path, tmp_path: Path, now: float
) -> None:
    """Its signatures count, not its age: today, in two years, and in 1970."""
    trusted = TrustedRepository(
        metadata_dir=tmp_path / "tuf",
        repository=str(demo / "repository"),
        root=(demo / "root.json").read_bytes(),
        notes=MemoryNotes(),
        build_time=MADE + YEARS_S,
        factory=True,
    )
    trusted.refresh(now)
    ((path, group),) = trusted.desired(["all"], "some-board")
    assert path == "fleet/groups/all"
    wanted = group.pipelines["digits"]
    target = trusted.find(wanted.model, wanted.version)
    content = bytearray()
    trusted.fetch(target, content.extend, max_bytes=1_000_000)
    bundle = open_bundle(bytes(content), max_bytes=len(content))
    assert bundle.manifest.model == "digits"


def test_no_key_is_left_and_everybody_may_read(demo: Path) -> None:
    """A service of another user reads all of it; nothing signs anything any more."""
    files = [path for path in demo.rglob("*") if path.is_file()]
    assert {path for path in files if path.suffix in (".pem", ".key")} == set()
    assert all(b"PRIVATE KEY" not in path.read_bytes() for path in files)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes == {0o644}


def test_fresh_settings_run_the_demo_and_write_nothing() -> None:
    """One sample a second, counted only, from files that no slot owns."""
    settings = parse_settings(render_settings(Asked(), "/etc/tinyward/agent.toml"))
    (pipeline,) = settings.pipeline
    assert pipeline.source == FilesSource(
        path=DEMO_STREAM, array="images", rate=1.0, loop=True, memory=True
    )
    assert pipeline.sinks == (CountSink(),)
    assert pipeline.factory == DEMO_REPOSITORY
    assert (settings.update.root, settings.update.repository) == (DEMO_ROOT, "")
    assert (settings.state_dir, settings.local.listen) == (STATE, "127.0.0.1:9797")


@given(
    st.text(max_size=40).filter(lambda it: "\x7f" not in it and it.isprintable()),
    st.lists(WORDS, max_size=4),
    st.one_of(st.just(""), WORDS),
)
def test_settings_of_a_fleet_say_what_was_asked(
    repository: str, groups: list[str], board: str
) -> None:
    """Whatever the address, the groups and the id are."""
    asked = Asked(True, repository, tuple(groups), board)
    settings = parse_settings(render_settings(asked, "/etc/tinyward/agent.toml"))
    assert settings.pipeline == ()  # the demo's slice is not believed under this root
    assert settings.update.root == FLEET_ROOT
    assert settings.update.repository == repository
    assert (settings.update.groups, settings.board.id) == (tuple(groups), board)


@pytest.mark.parametrize("fleet", [False, True])
def test_every_example_in_a_comment_is_one(*, fleet: bool) -> None:
    """With the marks taken away, what is explained parses, too."""
    lines = render_settings(Asked(fleet=fleet), "/etc/agent.toml").decode().splitlines()
    marked = [line for line in lines if line.startswith("# ")]
    opens = [number for number, line in enumerate(marked) if line.startswith("# [")]
    assert len(opens) == (4 if fleet else 3)
    taken: list[str] = []
    for number in opens:
        taken.append(marked[number])
        for line in marked[number + 1 :]:
            if " = " not in line:
                break
            taken.append(line)
    text = "\n".join(line.removeprefix("# ") for line in taken)
    if fleet:  # the demo would need its own root
        text += f'\n[update]\nroot = "{FLEET_ROOT}"\n'
    settings = parse_settings(text.encode())
    assert settings.control.listen == "0.0.0.0:8443"
    assert settings.seal.credential == "seal-key"
    names = [pipeline.name for pipeline in settings.pipeline]
    assert names == (["digits", "door"] if fleet else ["door"])
