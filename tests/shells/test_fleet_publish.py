"""Waves by signed group files: what we published, and what others publish meanwhile."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.cli.fleet_publish import Files, OverruledError, Publisher
from agent.core.inventory import BoardTable
from agent.core.targets import GroupFile, Wanted
from agent.core.waves import Course, Phase, Plan, begin, draw_waves
from agent.errors import SettingsError
from agent.publish.repository import Repository, init_repository
from agent.publish.staging import Assignment, load_staged
from tests.fakes.daemon_process import wait_until
from tests.fakes.rollout_fleet import rollout_fleet

NOW = 1_795_000_000.0
IDS = [f"b{number}" for number in range(20)]
BOARDS = [
    BoardTable(name, f"10.0.0.{number + 1}", ("canary",) if number == 0 else ())
    for number, name in enumerate(IDS)
]
WAVES = draw_waves(BOARDS, ("group:canary", "10%", "all"), "s")
BEGUN = begin(Plan(WAVES, at_once=20), 0.0)
FULL = Assignment(percent=100.0, paused=False)


def at(wave: int, phase: Phase = Phase.RUNNING) -> Course:
    """Return a rollout in one of its waves."""
    return replace(BEGUN, wave=wave, phase=phase)


@dataclass
class Owner:
    """A repository with kws 7 for all, 8 and 9 to come, and one rollout of 8.

    Attributes:
        secret: The passphrase of its keys.
        kept: What the rollout made durable last.
    """

    home: Path
    secret: bytes = b""
    said: list[str] = field(default_factory=list)
    kept: Files = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repository = init_repository(
            self.home / "repo", None, self.secret, now=NOW
        )
        for version in (7, 8, 9):
            self.repository.add(b"%d" % version, model="kws", version=version)
        for group in ("all", "canary"):
            self.repository.assign(group, {"door": ("kws", 7)}, assignment=FULL)
        self.repository.publish(NOW)

    def publisher(self, *, again: bool = False, salt: str = "s") -> Publisher:
        """Return a publisher as each new process makes one."""
        return Publisher(
            Repository.open(self.home / "repo"),
            "all",
            {"door": ("kws", 8)},
            WAVES,
            IDS,
            salt,
            lambda: NOW,
            self.said.append,
            again=again,
            left=dict(self.kept),
            note=self._note,
        )

    def _note(self, files: Files) -> None:
        self.kept = dict(files)

    def colleague(self, version: int, percent: float = 100.0) -> None:
        """Let somebody else publish for all."""
        asked = Assignment(percent=percent, paused=False)
        self.repository.assign("all", {"door": ("kws", version)}, assignment=asked)
        self.repository.publish(NOW)

    def file(self, group: str) -> GroupFile:
        """Return a published file."""
        return self.repository.status().groups[group]

    def shown(self, *groups: str) -> list[tuple[int, float, bool]]:
        """Return version, percent and pause of published files."""
        files = [self.file(group) for group in groups]
        return [(it.pipelines["door"].version, it.percent, it.paused) for it in files]


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    """A repository and one rollout."""
    return Owner(tmp_path)


def test_a_colleagues_emergency_is_left_alone(owner: Owner) -> None:
    """9 for all while 8 is at 10 %: neither paused nor overwritten, but told of."""
    ours = owner.publisher()
    ours.open_wave(at(1))
    owner.colleague(9)
    before = owner.file("all")
    with pytest.raises(OverruledError, match="somebody else published group:all"):
        ours.check(at(1))
    ours.close(at(1, Phase.PAUSED))
    assert owner.file("all") == before
    assert owner.shown("canary") == [(8, 100.0, True)]
    again = owner.publisher()
    with pytest.raises(OverruledError, match="kws 9"):
        again.open_wave(at(2))
    assert owner.file("all") == before


def test_retry_says_it_over_theirs(owner: Owner) -> None:
    """Who asks for that has seen what others want."""
    owner.publisher().open_wave(at(1))
    owner.colleague(9)
    owner.publisher(again=True).open_wave(at(2))
    assert owner.shown("all") == [(8, 100.0, False)]


def test_what_was_there_before_us_is_not_foreign(owner: Owner) -> None:
    """The files of the last version are ours to replace; what came since is not."""
    ours = owner.publisher()
    owner.colleague(9)
    with pytest.raises(OverruledError):
        ours.open_wave(at(1))
    fresh = Owner(owner.home / "fresh")
    fresh.publisher().open_wave(at(0))
    assert fresh.shown("all", "canary") == [(7, 100.0, False), (8, 100.0, False)]


def test_a_publication_that_failed_leaves_nothing_staged(owner: Owner) -> None:
    """A key that is away: the next `repo publish` of anybody opens no wave."""
    keys, away = owner.home / "repo-keys", owner.home / "away"
    keys.rename(away)
    with pytest.raises(SettingsError, match="have to sign"):
        owner.publisher().open_wave(at(2))
    assert not load_staged(owner.home / "repo")
    away.rename(keys)
    Repository.open(owner.home / "repo").publish(NOW)
    assert owner.shown("all", "canary") == [(7, 100.0, False)] * 2
    # What we meant to say was durable before, and is not taken for another's.
    owner.publisher().open_wave(at(2))
    assert owner.shown("all", "canary") == [(8, 100.0, False)] * 2


def test_a_resumed_rollout_opens_all_it_has_closed(owner: Owner) -> None:
    """Paused in the second wave, by another process gone on with, done."""
    ours = owner.publisher()
    ours.open_wave(at(0))
    ours.open_wave(at(1))
    ours.close(at(1, Phase.PAUSED))
    assert [paused for _, _, paused in owner.shown("all", "canary")] == [True, True]
    later = owner.publisher()
    later.open_wave(at(1))
    later.open_wave(at(2))
    later.close(at(2, Phase.DONE))
    assert owner.shown("all", "canary") == [(8, 100.0, False)] * 2


def test_what_others_staged_is_neither_signed_nor_lost(owner: Owner) -> None:
    """It is named before a rollout begins; later it waits for its owner."""
    ours = owner.publisher()
    owner.repository.assign("secret", {"door": ("kws", 9)}, assignment=FULL)
    with pytest.raises(SettingsError, match="not published yet: group:secret"):
        ours.rehearse()
    ours.open_wave(at(0))
    assert "secret" not in owner.repository.status().groups
    assert [*load_staged(owner.home / "repo").groups] == ["secret"]


def test_a_share_is_never_lowered(owner: Owner) -> None:
    """Half of the boards have it already: a wave of a tenth takes it from nobody."""
    owner.repository.assign(
        "all",
        {"door": ("kws", 8)},
        assignment=Assignment(percent=50.0, salt="s", paused=False),
    )
    owner.repository.publish(NOW)
    owner.publisher().open_wave(at(1))
    assert owner.shown("all") == [(8, 50.0, False)]
    other = owner.publisher(salt="t", again=True)
    with pytest.raises(OverruledError, match="drawn by another salt: s"):
        other.rehearse()


def test_a_share_that_was_raised_by_hand_stops_it(owner: Owner) -> None:
    """Whoever did that wants something: nothing is closed either."""
    ours = owner.publisher()
    ours.open_wave(at(1))
    owner.colleague(8, percent=60.0)
    with pytest.raises(OverruledError, match="60 % of boards"):
        ours.check(at(1))
    ours.close(at(1, Phase.PAUSED))
    assert owner.shown("all") == [(8, 60.0, False)]


@pytest.mark.parametrize(
    ("version", "said"), [(5, "is not published"), (9, "is revoked")]
)
def test_a_version_that_cannot_be_assigned(
    owner: Owner, version: int, said: str
) -> None:
    """Found in the rehearsal, before any board is looked at."""
    owner.repository.revoke([owner.repository.digest("kws", 9)])
    owner.repository.publish(NOW)
    ours = owner.publisher()
    ours.assign = {"door": ("kws", version)}
    with pytest.raises(SettingsError, match=said):
        ours.rehearse()


def test_a_rehearsal_opens_the_keys_and_writes_nothing(owner: Owner) -> None:
    """A key that is away is found; where all are, every file stays as it was."""
    before = _contents(owner.home / "repo")
    owner.publisher().rehearse()
    assert _contents(owner.home / "repo") == before
    (owner.home / "repo-keys").rename(owner.home / "away")
    owner.publisher().rehearse(with_keys=False)
    with pytest.raises(SettingsError, match="have to sign"):
        owner.publisher().rehearse()


def test_a_rollout_stops_when_it_is_overruled(tmp_path: Path) -> None:
    """The command pauses with their words, and says so again when it is run again."""
    with rollout_fleet(tmp_path, 2, waves=("group:canary", "all")) as fleet:
        (tmp_path / "owner").mkdir()
        owner = Owner(tmp_path / "owner", b"correct horse")
        for board in fleet.boards.values():
            board.state["update"]["orchestrator"] = "tuf"
            board.held.clear()
        secret = tmp_path / "passphrase"
        secret.write_bytes(owner.secret)
        fleet.title = "door=kws@8"
        words = ["--repository", str(owner.home / "repo"), "--by-percent", "group:all"]
        words += ["--passphrase-file", str(secret)]
        process = fleet.spawn(*words, "--patience", "0.5")
        try:
            wait_until(lambda: owner.shown("canary")[0][0] == 8, "the canary's file")
            owner.repository.assign("canary", {"door": ("kws", 9)}, assignment=FULL)
            owner.repository.publish(NOW)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 1, out
        course = fleet.kept()["course"]
        assert (course["phase"], course["reason"]) == ("paused", "rollout")
        assert "somebody else published group:canary: door = kws 9" in course["why"]
        assert fleet.kept()["files"]["canary"]["pipelines"]["door"]["version"] == 8
        again = fleet.rollout(*words, assign="door=kws@8")
        assert again.exit_code == 1, again.output
        assert "somebody else published" in " ".join(again.stdout.split())
        assert owner.shown("canary") == [(9, 100.0, False)]


@settings(max_examples=12, deadline=None)  # each signs a few times
@given(steps=st.lists(st.sampled_from(["open", "close", "theirs"]), max_size=5))
def test_no_file_of_somebody_else_is_ever_changed(
    tmp_path_factory: pytest.TempPathFactory, steps: Iterable[str]
) -> None:
    """Whatever the order: after they published, the file says what they said."""
    owner = Owner(tmp_path_factory.mktemp("owner"))
    ours, theirs = owner.publisher(), None
    for step in steps:
        if step == "theirs":
            owner.colleague(9)
            theirs = owner.file("all")
        elif step == "close":
            ours.close(at(1, Phase.PAUSED))
        else:
            try:
                ours.open_wave(at(1))
            except OverruledError:
                assert theirs is not None
        if theirs is not None:
            assert owner.file("all") == theirs
    if theirs is None and owner.kept:
        assert owner.file("all").pipelines["door"] == Wanted("kws", 8)


def _contents(folder: Path) -> dict[Path, bytes]:
    """Return all files of a folder."""
    return {it: it.read_bytes() for it in folder.rglob("*") if it.is_file()}
