"""``tinyward install`` and ``uninstall`` as programs of a slot, on a tree of their own.

The tools of systemd are the real ones, told to work on that tree; nothing runs there.
"""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from agent.cli.installing import Session, Telling
from agent.errors import SettingsError
from agent.install.places import SETTINGS
from agent.install.steps import Check, Planned
from agent.publish.repository import init_repository
from agent.settings import parse_settings

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = ("systemctl", "systemd-sysusers", "systemd-tmpfiles")
NOBODY = 65534
PROGRAM = """\
#!{python}
from agent.__main__ import main
main()
"""


@pytest.fixture
def tree(tmp_path: Path, require_tool: Callable[[str], Path]) -> Path:
    """Give a tree with a slot whose program is this agent."""
    for tool in TOOLS:
        require_tool(tool)
    if os.geteuid() != 0:
        pytest.skip("only root may own the files of a service")
    root = tmp_path / "root"
    for name in ("etc", "run", "usr/local/bin", "opt/tinyward"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    fill(root, "a")
    return root


def fill(root: Path, slot: str) -> Path:
    """Make a slot: a Python of its own that finds this agent."""
    folder = root / "opt/tinyward" / slot
    words = ["-m", "venv", "--without-pip", str(folder)]
    subprocess.run([sys.executable, *words], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    paths = [str(REPOSITORY), *(path for path in sys.path if "site-packages" in path)]
    (packages / "agent.pth").write_text("\n".join(paths))
    program = folder / "bin/tinyward"
    program.write_text(PROGRAM.format(python=folder / "bin/python"))
    program.chmod(0o755)
    return program


def call(
    root: Path, *words: object, slot: str = "a"
) -> subprocess.CompletedProcess[str]:
    """Run the program of a slot on its tree."""
    command, *options = map(str, words)
    program = root / "opt/tinyward" / slot / "bin/tinyward"
    return subprocess.run(
        [str(program), command, "--root-directory", str(root), *options],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def names(root: Path) -> set[str]:
    """Return every name below a tree but the slots' own."""
    found = (str(path.relative_to(root)) for path in root.rglob("*"))
    return {name for name in found if not name.startswith("opt/tinyward/a/")}


def test_installing_on_a_tree(tree: Path) -> None:
    """What is planned, what is done, and that a second run finds all of it."""
    before = names(tree)
    planned = call(tree, "install", "--dry-run")
    assert planned.stdout.endswith("nothing was changed\n")
    assert names(tree) == before

    first = call(tree, "install", "--with", "camera")
    assert (first.returncode, first.stderr) == (0, "")
    assert "[done ] the demo's model" in first.stdout
    assert (tree / "opt/tinyward/current").readlink() == Path("a")
    units = tree / "etc/systemd/system"
    assert (units / "tinyward.service").is_file()
    assert (units / "multi-user.target.wants/tinyward.service").is_symlink()
    settings = parse_settings((tree / SETTINGS.lstrip("/")).read_bytes())
    assert [pipeline.name for pipeline in settings.pipeline] == ["digits"]
    assert (tree / "var/lib/tinyward").stat().st_mode & 0o777 == 0o700

    again = call(tree, "install", "--json")
    said = json.loads(again.stdout)
    assert (said["ok"], said["changed"], said["slot"]) == (True, False, "a")
    assert {step["result"] for step in said["steps"]} == {"ok"}


def test_upgrading_a_tree_and_going_back(tree: Path) -> None:
    """The links, the marker, and the program of the slot before."""
    assert call(tree, "install").returncode == 0
    fill(tree, "b")
    assert call(tree, "install", slot="b").returncode == 0
    slots = tree / "opt/tinyward"
    assert (slots / "current").readlink() == Path("b")
    assert (slots / "previous").readlink() == Path("a")
    # Nothing ran: the first boot of the image has not tried it yet.
    assert (slots / "trial").read_text() == "b\n"
    assert call(tree, "install", "--fall-back").returncode == 0
    assert (slots / "current").readlink() == Path("a")
    assert not (slots / "trial").exists()
    assert "nothing to go back from" in call(tree, "install", "--fall-back").stdout


def test_removing_from_a_tree(tree: Path) -> None:
    """Settings and state stay until a purge, which leaves nothing."""
    assert call(tree, "install", "--with", "sound").returncode == 0
    removed = call(tree, "uninstall")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert not (tree / "opt/tinyward").exists()
    assert (tree / "etc/tinyward/agent.toml").is_file()
    assert (tree / "var/lib/tinyward").is_dir()
    fill(tree, "a")
    purged = call(tree, "uninstall", "--purge", "--yes")
    assert (purged.returncode, purged.stderr) == (0, "")
    left = {name for name in names(tree) if "tinyward" in name}
    assert left == set()
    assert "tinyward" not in (tree / "etc/passwd").read_text()
    assert "tinyward" not in (tree / "etc/group").read_text()


def test_a_fleet(tree: Path, tmp_path: Path) -> None:
    """Its root is checked and copied, and the settings name what was asked for."""
    init_repository(tmp_path / "repo", None, b"x", now=1.8e9)
    root = tmp_path / "repo/metadata/1.root.json"
    words = ["--repository", "https://models.example/fleet", "--root", root]
    done = call(tree, "install", *words, "--group", "doors", "--board-id", "door-7")
    assert done.returncode == 2  # a key is made by the service's user of a real board
    assert "real board" in done.stderr
    done = call(tree, "install", *words, "--group", "doors")
    assert (done.returncode, done.stderr) == (0, "")
    settings = parse_settings((tree / SETTINGS.lstrip("/")).read_bytes())
    assert settings.pipeline == ()
    assert settings.update.repository == "https://models.example/fleet"
    assert settings.update.groups == ("doors",)
    assert (tree / "etc/tinyward/root.json").read_bytes() == root.read_bytes()
    assert not (tree / "opt/tinyward/demo").exists()

    init_repository(tmp_path / "other", None, b"x", now=1.8e9)
    other = tmp_path / "other/metadata/1.root.json"
    refused = call(tree, "install", "--root", other)
    assert (refused.returncode, "--replace-root" in refused.stderr) == (2, True)
    assert call(tree, "install", "--root", other, "--replace-root").returncode == 0
    assert (tree / "etc/tinyward/root.json").read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{}", "metadata"),
        (b"\x00\xff", "metadata"),
        (b'{"signed": {"_type": "root"}, "signatures": []}', "metadata"),
        (None, "settings"),
    ],
)
def test_what_is_no_root_is_not_trusted(
    tree: Path, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """A stranger's file, half a file, no file: nothing is changed."""
    path = tmp_path / "root.json"
    if content is not None:
        path.write_bytes(content)
    before = names(tree)
    refused = call(tree, "install", "--root", path)
    assert (refused.returncode, f"[{reason}]" in refused.stderr) == (2, True)
    assert names(tree) == before


def test_a_root_that_somebody_changed_is_not_trusted(
    tree: Path, tmp_path: Path
) -> None:
    """It does not sign itself any more."""
    init_repository(tmp_path / "repo", None, b"x", now=1.8e9)
    root = tmp_path / "repo/metadata/1.root.json"
    text = root.read_text().replace('"version": 1', '"version": 2')
    text = text.replace('"version":1', '"version":2')
    root.write_text(text)
    refused = call(tree, "install", "--root", root)
    assert (refused.returncode, "[threshold]" in refused.stderr) == (2, True)


def test_own_settings(tree: Path, tmp_path: Path) -> None:
    """They are checked before anything is changed, copied once, and kept."""
    own = tmp_path / "own.toml"
    before = names(tree)
    own.write_text("log_levle = 1\n")
    refused = call(tree, "install", "--config", own)
    assert (refused.returncode, "log_levle" in refused.stderr) == (2, True)
    assert names(tree) == before
    own.write_text("log_level = 'debug'\n")
    assert call(tree, "install", "--config", own).returncode == 0
    assert (tree / SETTINGS.lstrip("/")).read_bytes() == own.read_bytes()
    assert not (tree / "opt/tinyward/demo").exists()
    own.write_text("log_level = 'error'\n")
    kept = call(tree, "install", "--config", own)
    assert (kept.returncode, "differ from the file you named" in kept.stdout) == (
        0,
        True,
    )
    (tree / SETTINGS.lstrip("/")).write_text("nonsense")
    broken = call(tree, "install")
    assert (broken.returncode, "agent.toml: not TOML" in broken.stderr) == (2, True)


def test_a_foreign_command_is_left_alone(tree: Path) -> None:
    """By the installation, which stops, and by the removal, which goes on."""
    program = tree / "usr/local/bin/tinyward"
    program.write_text("#!/bin/sh\n")
    before = names(tree)
    refused = call(tree, "install")
    assert (refused.returncode, "is not ours" in refused.stderr) == (2, True)
    assert names(tree) == before
    gone = call(tree, "uninstall")
    assert (gone.returncode, "kept: it is not ours" in gone.stdout) == (0, True)
    assert program.read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--repository", "https://x"),
        ("--group", "doors"),
        ("--with", "teleporter"),
        ("--image", "--board-id", "x"),
        ("--config", "own.toml", "--group", "doors"),
    ],
)
def test_options_that_make_no_sense(tree: Path, words: tuple[str, ...]) -> None:
    """They are usage errors, before anything is looked at."""
    before = names(tree)
    assert call(tree, "install", *words).returncode == 2
    assert names(tree) == before


def test_a_purge_asks_and_without_anybody_needs_yes(tree: Path) -> None:
    """Nothing is removed for good by mistake."""
    assert call(tree, "install").returncode == 0
    before = names(tree)
    refused = call(tree, "uninstall", "--purge")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert names(tree) == before


def test_a_person_is_asked_on_a_terminal(tree: Path) -> None:
    """They see what goes; no means no, and yes means yes."""
    assert call(tree, "install").returncode == 0
    before = names(tree)
    code, said = ask(tree, "n\n")
    assert (code, "settings are gone (/etc/tinyward)" in said) == (1, True)
    assert names(tree) == before
    code, said = ask(tree, "y\n")
    assert (code, said.splitlines()[-1]) == (0, "removed")
    assert {name for name in names(tree) if "tinyward" in name} == set()


def ask(root: Path, answer: str) -> tuple[int, str]:
    """Purge on a terminal; return the exit code and what it showed."""
    ours, theirs = pty.openpty()
    program = root / "opt/tinyward/a/bin/tinyward"
    words = ["uninstall", "--purge", "--root-directory", str(root)]
    child = subprocess.Popen(
        [str(program), *words], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    said = bytearray()
    with suppress(OSError):  # EIO: the last one has closed the terminal
        while chunk := os.read(ours, 4096):
            said += chunk
    os.close(ours)
    return child.wait(), said.decode()


def test_outside_of_a_slot_the_line_is_taught(tmp_path: Path) -> None:
    """The one that anybody may copy; for the slot that is free."""
    slots = tmp_path / "opt/tinyward"
    slots.mkdir(parents=True)
    session = Session.begin(tmp_path)
    for current, free in ((None, "a"), ("a", "b"), ("b", "a")):
        if current:
            (slots / "current").unlink(missing_ok=True)
            (slots / "current").symlink_to(current)
        with pytest.raises(SettingsError) as caught:
            session.slot(may_guess=False)
        assert caught.value.reason == "not_installed"
        assert f"sudo sh -c 'python3 -m venv /opt/tinyward/{free}" in caught.value.todo
        assert session.slot(may_guess=True) == free


def test_only_root_installs(tmp_path: Path) -> None:
    """Anybody else is told the line with sudo."""
    if os.geteuid() != 0:
        pytest.skip("root becomes somebody else here")
    program = (
        "import os\nfrom pathlib import Path\n"
        "from agent.cli.installing import Session\n"
        f"session = Session.begin(Path({str(tmp_path)!r}))\n"
        f"os.setuid({NOBODY})\n"
        "try:\n    session.check_root('install')\n"
        "except Exception as err:\n    print(err.exit_code, err.reason, err.todo)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    line = f"sudo {sys.prefix}/bin/tinyward install"
    assert ran.stdout == f"2 permission {line}\n"


def test_joining_a_fleet_later(tree: Path, tmp_path: Path) -> None:
    """Settings as installed are written anew; own ones are kept, and nobody misses
    what they lack: it stands last, in JSON too."""
    assert call(tree, "install").returncode == 0
    init_repository(tmp_path / "repo", None, b"x", now=1.8e9)
    root = tmp_path / "repo/metadata/1.root.json"
    words = ["--repository", "https://models.example/fleet", "--root", root]
    done = call(tree, "install", *words)
    path = tree / SETTINGS.lstrip("/")
    assert (done.returncode, "[todo ]" in done.stdout) == (0, False)
    settings = parse_settings(path.read_bytes())
    assert settings.update.repository == "https://models.example/fleet"

    path.write_text("log_level = 'info'\n")
    kept = call(tree, "install", *words)
    assert kept.returncode == 0
    assert kept.stdout.count("[todo ] settings") == 2
    last = kept.stdout.splitlines()[-1]
    assert last.startswith("[todo ] settings")
    assert 'repository = "https://models.example/fleet"' in last
    said = json.loads(call(tree, "install", "--json", *words).stdout)
    assert [*said][-1] == "todo"
    assert "put into them" in said["todo"][0]
    assert path.read_text() == "log_level = 'info'\n"


def test_a_trial_is_neither_done_nor_due_in_a_dry_run() -> None:
    """What only an installation tries is skipped."""
    telling = Telling(as_json=True, dry_run=True)
    telling(Planned(Check("slot a runs here")))
    assert [row["result"] for row in telling.rows] == ["skip"]
