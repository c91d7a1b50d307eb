"""Slices on the operator's machine: folders and archives, and what a board needs."""

import io
import json
import os
import stat
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import slice_files
from agent.cli.slice_choice import Choice, Needs, choose_files
from agent.cli.slice_files import open_slice
from agent.errors import AgentError
from agent.publish import slices
from agent.publish.repository import init_repository
from agent.publish.slices import export_slice
from tests.fakes.bundle_factory import make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.slices import (
    Tree,
    bundle,
    group,
    make_tree,
    read_whole,
    stored,
    write_tar,
    write_tree,
    write_zip,
)

TREE = make_tree({7: bundle(7), 8: bundle(8)}, {"fleet/groups/all": group(("door", 8))})
METADATA = [
    "metadata/1.root.json",
    "metadata/2.root.json",
    "metadata/2.fleet.json",
    "metadata/2.snapshot.json",
    "metadata/2.targets.json",
    "metadata/timestamp.json",
]


def make(kind: str, tree: Tree, home: Path) -> Path:
    """Write a tree as a folder or an archive."""
    if kind == "folder":
        return write_tree(home / "repo", tree)
    if kind == "zip":
        return write_zip(home / "repo.zip", tree, "deep/down/")
    if kind == "tar":
        return write_tar(home / "repo.tar", tree, "./")
    return write_tar(home / "repo.tgz", tree, "fleet-repo/", "w:gz")


NOW = 1_790_000_000.0
KINDS = ["folder", "tar", "tgz", "zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_holds_the_same_files(kind: str, tmp_path: Path) -> None:
    """Paths, sizes, content and digests are those of the repository."""
    with open_slice(make(kind, TREE, tmp_path)) as files:
        assert dict(files.sizes) == {name: len(raw) for name, raw in TREE.items()}
        assert {name: read_whole(files, name) for name in TREE} == TREE
        for name, raw in TREE.items():
            assert files.digest(name) == sha256(raw).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_read_in_any_order(kind: str, tmp_path: Path) -> None:
    """A resumed upload begins in the middle, and another file may come between."""
    path = stored("models/kws/8.bundle", bundle(8))
    other = "metadata/timestamp.json"
    with open_slice(make(kind, TREE, tmp_path)) as files:
        assert files.read(path, 100, 10) == bundle(8)[100:110]
        assert files.read(other, 0, 5) == TREE[other][:5]
        assert files.read(path, 5, 10) == bundle(8)[5:15]
        assert files.read(path, len(bundle(8)) - 3, 100) == bundle(8)[-3:]


def test_links_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    """A link may lead anywhere, a pipe nowhere: neither is part of a slice."""
    folder = write_tree(tmp_path / "repo", TREE)
    secret = tmp_path / "secret"
    secret.write_text("key")
    (folder / "metadata" / "9.root.json").symlink_to(secret)
    (folder / "targets" / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "targets" / "pipe")
    with open_slice(folder) as files:
        assert set(files.sizes) == set(TREE)


def test_a_link_that_comes_later_is_not_followed(tmp_path: Path) -> None:
    """What is read is what was listed, or nothing."""
    folder = write_tree(tmp_path / "repo", TREE)
    path = folder / "metadata" / "timestamp.json"
    with open_slice(folder) as files:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(AgentError) as raised:
            files.digest("metadata/timestamp.json")
    assert raised.value.reason == "truncated"


def hostile_tar(path: Path) -> None:
    """Write an archive whose members are everything but plain files."""
    write_tar(path, TREE)
    with tarfile.open(path, "a") as tar:
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.FIFOTYPE,
        ):
            member = tarfile.TarInfo(f"targets/kind{kind.decode()}")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name in ("../evil", "/abs/evil", "targets/../../evil", "targets/.hidden"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))


def hostile_zip(path: Path) -> None:
    """Write the same as a zip archive."""
    write_zip(path, TREE)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("targets/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        for name in ("../evil", "/abs/evil", "targets/../../evil", "targets/.hidden"):
            archive.writestr(name, "evil")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_53_archives_hold_plain_files_or_nothing(kind: str, tmp_path: Path) -> None:
    """Links, devices and names that climb are passed over; nothing is extracted."""
    path = tmp_path / f"hostile.{kind}"
    (hostile_tar if kind == "tar" else hostile_zip)(path)
    with open_slice(path) as files:
        assert set(files.sizes) == set(TREE)
        assert {name: read_whole(files, name) for name in TREE} == TREE
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_53_a_sparse_member_is_none(tmp_path: Path) -> None:
    """A terabyte of zeros in 500 bytes is not read."""
    path = tmp_path / "sparse.tar"
    write_tar(path, TREE)
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("targets/huge")
        member.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,0",
            "GNU.sparse.size": str(2**40),
        }
        tar.addfile(member)
    with open_slice(path) as files:
        assert "targets/huge" not in files.sizes


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_53_a_name_twice_is_no_slice(kind: str, tmp_path: Path) -> None:
    """Which of the two was meant nobody can tell."""
    path = tmp_path / f"twice.{kind}"
    if kind == "tar":
        write_tar(path, TREE)
        with tarfile.open(path, "a") as tar:
            tar.addfile(tarfile.TarInfo("metadata/timestamp.json"))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for _ in range(2):
                archive.writestr("metadata/timestamp.json", "{}")
    assert refused(path) == "malformed"


def test_53_too_many_names_are_no_slice(
    tmp_path: Path,
) -> None:
    """A million names are not kept in memory."""
    many = {f"targets/{number}": b"" for number in range(slice_files.MAX_FILES + 1)}
    assert refused(write_tar(tmp_path / "many.tar", many)) == "too_large"


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"readme.txt": b"hello"}, "metadata"),
        ({"targets/a": b"hello"}, "metadata"),
        (
            {"a/metadata/timestamp.json": b"", "b/metadata/timestamp.json": b""},
            "metadata",
        ),
    ],
    ids=["no repository", "no metadata", "two repositories"],
)
def test_what_is_no_repository(tree: Tree, reason: str, tmp_path: Path) -> None:
    """The error says what is missing, before anything is sent."""
    assert refused(write_tar(tmp_path / "other.tar", tree)) == reason
    if "readme.txt" in tree:
        assert refused(write_tree(tmp_path / "other", tree)) == reason


def refused(path: Path) -> str:
    """Return the reason for which something is no slice."""
    with pytest.raises(AgentError) as raised, open_slice(path):
        pass
    return raised.value.reason


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    """A typing error is told as one."""
    assert refused(tmp_path / "none") == "settings"


def test_an_archive_that_is_cut_is_told_as_one(tmp_path: Path) -> None:
    """What is wrong is the copy, not what it is a copy of."""
    path = tmp_path / "slice.tar.gz"
    path.write_bytes(ARCHIVES["tgz"][:-200])
    with pytest.raises(AgentError) as raised, open_slice(path):
        pass
    said = f"{path}: the archive is cut or damaged: "
    assert (raised.value.reason, str(raised.value)[: len(said)]) == ("truncated", said)


@given(st.binary(max_size=600))
def test_law_any_bytes_are_a_slice_or_refused(raw: bytes) -> None:
    """No archive, however broken, leaves as anything but our error."""
    read_all(raw)


@given(
    st.sampled_from(["tar", "tgz", "zip"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
)
def test_law_mutated_archives_are_a_slice_or_refused(
    kind: str, changes: list[tuple[float, int]], cut: float
) -> None:
    """Flipped bytes and lost ends, too."""
    raw = bytearray(ARCHIVES[kind])
    for where, byte in changes:
        raw[min(int(where * len(raw)), len(raw) - 1)] = byte
    read_all(bytes(raw[: int(cut * len(raw)) + 1]))


def read_all(raw: bytes) -> None:
    """Read whatever an archive holds."""
    path = SCRATCH / "archive"
    path.write_bytes(raw)
    try:
        with open_slice(path) as files:
            for name in files.sizes:
                files.digest(name)
    except AgentError:
        pass


def _archives(home: Path) -> dict[str, bytes]:
    """Return the tree in all kinds of archives."""
    return {kind: make(kind, TREE, home).read_bytes() for kind in KINDS[1:]}


# What a board needs of it

DOOR = Needs(models={"door": "kws"}, running={"door": sha256(bundle(7)).hexdigest()})


def choose(tree: Tree, needs: Needs) -> Choice:
    """Choose from a tree."""
    sizes = {name: len(raw) for name, raw in tree.items()}
    return choose_files(sizes, tree.__getitem__, needs)


def test_only_what_is_wanted_and_not_there_is_sent() -> None:
    """Bundles first, metadata behind them, timestamp.json last; old ones stay."""
    choice = choose(TREE, DOOR)
    assert choice.absent == ()
    assert choice.paths == (
        stored("fleet/groups/all", group(("door", 8))),
        stored("models/kws/8.bundle", bundle(8)),
        *METADATA,
    )


def test_timestamp_is_the_last_whatever_roles_are_called() -> None:
    """With it the slice counts: a role without a version in its name comes before."""
    meta = b'{"signed": {"meta": {"zebra.json": {"version": 1}}}}'
    tree = {"metadata/timestamp.json": meta, "metadata/zebra.json": b'{"signed": {}}'}
    assert choose(tree, DOOR).paths == (
        "metadata/zebra.json",
        "metadata/timestamp.json",
    )


def test_what_runs_already_is_not_sent() -> None:
    """A board that runs what is wanted needs the metadata alone."""
    running = Needs({"door": "kws"}, {"door": sha256(bundle(8)).hexdigest()})
    assert choose(TREE, running).paths[1:] == tuple(METADATA)


def test_the_largest_comes_last_among_bundles() -> None:
    """What fails early fails cheaply."""
    big, small = bundle(7, 90_000), bundle(8, 300)
    state = group(("door", 7), ("gate", 8))
    tree = make_tree({7: big, 8: small}, {"fleet/groups/all": state})
    sent = choose(tree, Needs({"door": "kws", "gate": "kws"})).paths
    bundles = [path for path in sent if path.endswith(".bundle")]
    assert bundles == [
        stored("models/kws/8.bundle", small),
        stored("models/kws/7.bundle", big),
    ]


def test_other_pipelines_and_models_are_left_out() -> None:
    """A repository of a whole fleet is mostly for others."""
    state = group(("door", 8), ("elsewhere", 7))
    tree = make_tree({7: bundle(7), 8: bundle(8)}, {"fleet/groups/all": state})
    sent = choose(tree, DOOR).paths
    assert stored("models/kws/7.bundle", bundle(7)) not in sent
    other = Needs(models={"door": "vww"})
    assert [p for p in choose(tree, other).paths if p.endswith(".bundle")] == []


@pytest.mark.parametrize(
    ("board", "devices"), [("", ["a", "b"]), ("a", ["a"]), ("c", [])]
)
def test_only_this_boards_exception_is_sent(board: str, devices: list[str]) -> None:
    """Where the board says its id; else all, since one may be its own."""
    states = {f"fleet/devices/{name}": group(("door", 8)) + b" " for name in "ab"}
    tree = make_tree({8: bundle(8)}, states)
    sent = choose(tree, Needs({"door": "kws"}, board=board)).paths
    found = [path[-1] for path in sent if path.startswith("targets/fleet/")]
    assert found == devices


def test_revocations_go_along() -> None:
    """Who learns of new models this way learns of revoked ones, too."""
    revoked = b'{"bundles": []}'
    tree = make_tree({}, {}, revoked)
    assert stored("revoked.json", revoked) in choose(tree, DOOR).paths


def test_an_operators_order_counts_like_a_group() -> None:
    """``push --assign`` names what no group names."""
    tree = make_tree({7: bundle(7), 8: bundle(8)}, {})
    needs = Needs({"door": "kws"}, wanted=frozenset({("door", "kws", 8)}))
    sent = [path for path in choose(tree, needs).paths if path.endswith(".bundle")]
    assert sent == [stored("models/kws/8.bundle", bundle(8))]


def test_a_fleet_server_may_choose_any_version() -> None:
    """Where somebody else decides later, every version of the board's models goes."""
    tree = make_tree({7: bundle(7), 8: bundle(8)}, {})
    sent = choose(tree, Needs({"door": "kws"}, every_version=True)).paths
    assert sum(path.endswith(".bundle") for path in sent) == 2


def test_a_wanted_bundle_that_is_not_there_is_told() -> None:
    """Listed or not: who waits for it should know."""
    tree = {name: raw for name, raw in TREE.items() if not name.endswith("8.bundle")}
    assert choose(tree, DOOR).absent == ("models/kws/8.bundle",)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b'{"signed": {"meta": {"snapshot.json": {}}}}', b"\xff"]
)
def test_metadata_that_cannot_be_read_is_sent_whole(raw: bytes) -> None:
    """The board judges, not we; timestamp.json stays last."""
    tree = TREE | {"metadata/timestamp.json": raw}
    if raw == b'{"signed": {"meta": {"snapshot.json": {}}}}':
        tree = {name: raw for name, raw in tree.items() if "1.snapshot" not in name}
    sent = choose(tree, DOOR).paths
    assert (set(sent), sent[-1]) == (set(tree), "metadata/timestamp.json")


def test_everything_on_request() -> None:
    """``--all`` leaves nothing out."""
    assert set(choose(TREE, Needs({}, everything=True)).paths) == set(TREE)


def test_a_real_repository_is_understood(tmp_path: Path) -> None:
    """What ``tinyward repo`` publishes, twice, is followed file by file."""
    made = make_repository(
        tmp_path / "repo",
        {("kws", 7): good_bundle(7), ("kws", 8): good_bundle(8)},
        {"all": {"door": ("kws", 7)}},
    )
    made.repository.assign("all", {"door": ("kws", 8)})
    made.repository.publish(1_790_000_060.0)
    with open_slice(tmp_path / "repo") as files:
        chosen = choose_files(files.sizes, lambda p: read_whole(files, p), DOOR)
    names = [path.rpartition("/")[2].partition(".")[2] for path in chosen.paths]
    assert names[:2] == ["all", "8.bundle"]
    assert chosen.paths[2] == "metadata/1.root.json"
    assert chosen.paths[-1] == "metadata/timestamp.json"
    assert len(chosen.paths) == 7


names = st.sampled_from(
    ["timestamp.json", "snapshot.json", "targets.json", "fleet.json", "a.json"]
)


@given(
    st.dictionaries(names, st.dictionaries(names, st.integers(1, 3), max_size=3)),
    st.sets(names),
)
def test_law_metadata_in_circles_ends(
    refers: dict[str, dict[str, int]], absent: set[str]
) -> None:
    """Files that name each other are read once; timestamp.json stays the last."""
    tree: Tree = {"metadata/timestamp.json": b'{"signed": {}}'}
    for name, named in refers.items():
        meta = {other: {"version": version} for other, version in named.items()}
        if name not in absent or name == "timestamp.json":
            tree[f"metadata/{name}"] = json.dumps({"signed": {"meta": meta}}).encode()
    sent = choose(tree, DOOR).paths
    assert set(sent) <= set(tree)
    assert sent[-1] == "metadata/timestamp.json"


@pytest.fixture(scope="module", autouse=True)
def _scratch(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make the archives that are spoiled, and a place for them."""
    global SCRATCH, ARCHIVES  # noqa: PLW0603 - Hypothesis gives no fixture per example
    SCRATCH = tmp_path_factory.mktemp("scratch")
    ARCHIVES = _archives(tmp_path_factory.mktemp("archives"))


SCRATCH: Path
ARCHIVES: dict[str, bytes]


def test_a_tar_of_bundles_is_no_zip(tmp_path: Path) -> None:
    """Bundles are zips: a tar that ends with a small one is still read as a tar."""
    made = init_repository(tmp_path / "repo", now=NOW)
    made.add(good_bundle(1), model="kws", version=1)
    made.assign("all", {"door": ("kws", 1)})
    made.publish(NOW)
    export_slice(made.path, tmp_path / "stick.tar", slices.Choice())
    assert zipfile.is_zipfile(tmp_path / "stick.tar")
    with open_slice(tmp_path / "stick.tar") as files:
        assert "metadata/timestamp.json" in files.sizes
