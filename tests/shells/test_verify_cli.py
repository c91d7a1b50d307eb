"""``tinyward verify``: ten numbered steps, or the first that does not hold."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.cli.verify_report import STEPS
from agent.core.reasons import Reason
from tests.conftest import missing
from tests.fakes.bundle_factory import DAY_S, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.certificates import Authority
from tests.fakes.static_server import StaticServer, find_nginx

NAMES = [name for name, _ in STEPS]


@pytest.fixture
def made(tmp_path: Path) -> SpoiledRepository:
    now = time.time()  # noqa: TID251 - the command reads the real clock
    made = make_repository(tmp_path / "repo", {("kws", 1): good_bundle(1)}, now=now)
    (tmp_path / "root.json").write_bytes(made.root)
    return made


def verify(made: SpoiledRepository, content: bytes, *options: str) -> Result:
    """Run the command on a file with this content."""
    file = made.path.with_name("the.bundle")
    file.write_bytes(content)
    root = str(made.path.with_name("root.json"))
    command = ["verify", str(file), "--repository", str(made.path), "--root", root]
    return CliRunner().invoke(cli, [*command, *options], env={"COLUMNS": "80"})


def verdict(made: SpoiledRepository, content: bytes) -> tuple[str, str]:
    """Return (name of the failed step, reason), both empty where all hold."""
    result = verify(made, content, "--json")
    told = json.loads(result.stdout)
    last = told["steps"][-1]
    assert (not told["ok"]) == result.exit_code
    assert NAMES[: len(told["steps"])] == [step["name"] for step in told["steps"]]
    assert all(step["ok"] for step in told["steps"][:-1])
    return ("" if last["ok"] else last["name"], told["reason"])


def test_a_signed_bundle_passes_every_step(made: SpoiledRepository) -> None:
    """All ten steps are told, in the order in which a board checks them."""
    assert verdict(made, good_bundle(1)) == ("", "")
    result = verify(made, good_bundle(1))
    assert (0, len(STEPS)) == (result.exit_code, result.stdout.count("✓"))
    assert "10 ✓ fields" in result.stdout


def test_a_flipped_bit_is_refused_and_said(made: SpoiledRepository) -> None:
    """The first step that does not hold is the last one told, with its reason."""
    content = bytearray(good_bundle(1))
    content[500] ^= 1
    result = verify(made, bytes(content))
    assert (result.exit_code, result.stdout.count("✗")) == (1, 1)
    assert " 7 ✗ listed: " in result.stdout
    assert "[digest]" in result.stdout


@pytest.mark.parametrize(
    ("content", "harm"),
    [(good_bundle(1)[:-1], "cut short"), (b"\x00" + good_bundle(1)[1:], "damaged")],
)
def test_a_failure_says_what_happened_and_what_to_do(
    made: SpoiledRepository, content: bytes, harm: str
) -> None:
    """The last line says what to do, also to whoever reads JSON."""
    result = verify(made, content)
    assert f"the file is {harm}" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("to do: Copy the file again")
    assert (
        f"to do: {json.loads(verify(made, content, '--json').stdout)['todo']}" == last
    )


def test_steps_stay_beside_their_numbers(made: SpoiledRepository) -> None:
    """What is wider than 80 columns goes on below its own text, nothing is cut."""
    lines = verify(made, good_bundle(1)).stdout.splitlines()[:-1]
    assert max(map(len, lines)) <= 80
    assert {line[:5] for line in lines if not line[:2].strip()} == {" " * 5}
    sha256 = hashlib.sha256(good_bundle(1)).hexdigest()
    assert sha256 in "".join(line.strip() for line in lines)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (good_bundle(1)[:-1], Reason.DIGEST),
        (good_bundle(1) + b"x", Reason.DIGEST),
        (b"", Reason.DIGEST),
        (good_bundle(2), Reason.MISSING_TARGET),
    ],
)
def test_what_nobody_signed_is_refused(
    made: SpoiledRepository, content: bytes, reason: Reason
) -> None:
    """Damaged bundles and unsigned versions fail where the list is consulted."""
    assert ("listed", reason) == verdict(made, content)


def test_another_bundle_of_a_signed_version_is_told_apart(
    made: SpoiledRepository,
) -> None:
    """A whole bundle that claims a signed version has the wrong digest or length."""
    from agent.publish.pack import render_bundle
    from tests.fakes.bundles import GOLDEN, VARIANTS, manifest

    flipped = {name: b"\x00" + content[1:] for name, content in VARIANTS.items()}
    other = render_bundle(manifest(flipped, version=1), flipped, GOLDEN)
    assert verdict(made, other) == ("listed", Reason.DIGEST)
    longer = {name: content + b"\x00" for name, content in VARIANTS.items()}
    other = render_bundle(manifest(longer, version=1), longer, GOLDEN)
    assert verdict(made, other) == ("listed", Reason.LENGTH)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "fleet"])
def test_a_strangers_signature_fails_at_its_role(
    made: SpoiledRepository, role: str
) -> None:
    """Each role's own step fails, and no later one is told."""
    made.sign_by_stranger(role)
    assert (role, Reason.SIGNATURE) == verdict(made, good_bundle(1))


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "fleet"])
def test_an_expired_role_fails_at_its_step(made: SpoiledRepository, role: str) -> None:
    """Expiry is judged by the real clock, and the role that expired is named."""
    made.expire(role)
    shutil.copy(made.file("root"), made.path.with_name("root.json"))
    assert verdict(made, good_bundle(1)) == (role, Reason.EXPIRED)


def test_another_root_is_refused(made: SpoiledRepository, tmp_path: Path) -> None:
    """With somebody else's root nothing of this repository is believed."""
    now = time.time()  # noqa: TID251 - the command reads the real clock
    other = make_repository(tmp_path / "other", now=now)
    (tmp_path / "root.json").write_bytes(other.root)
    assert verdict(made, good_bundle(1)) == ("timestamp", Reason.SIGNATURE)
    (tmp_path / "root.json").write_bytes(b"{}")
    assert verdict(made, good_bundle(1)) == ("root", Reason.METADATA)


def test_the_repositorys_own_copy_is_checked(made: SpoiledRepository) -> None:
    """A right file in hand does not excuse a damaged or missing one in the store."""
    file = made.bundle_file("kws", 1)
    made.flip_bit(file)
    assert verdict(made, good_bundle(1)) == ("content", Reason.DIGEST)
    file.unlink()
    assert verdict(made, good_bundle(1)) == ("content", Reason.MISSING_TARGET)


def test_signed_nonsense_still_has_to_open(made: SpoiledRepository) -> None:
    """A signature over bytes that are no bundle does not make them one."""
    now = time.time()  # noqa: TID251 - the command reads the real clock
    made.repository.add(b"no bundle", model="kws", version=5)
    made.repository.add(good_bundle(7), model="other", version=7)
    made.repository.publish(now)
    step, reason = verdict(made, b"no bundle")
    assert (step, reason in {"malformed", "truncated"}) == ("container", True)
    assert verdict(made, good_bundle(7)) == ("fields", Reason.MISMATCH)


def test_nothing_is_left_behind_and_nothing_remembered(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """Verifying changes no file beside the bundle, and forgets older verdicts."""
    verify(made, good_bundle(1))
    before = sorted(tmp_path.rglob("*"))
    older = made.copy(tmp_path.with_name(f"{tmp_path.name}-older"))
    made.repository.publish(time.time() + DAY_S)  # noqa: TID251 - the real clock
    assert verdict(made, good_bundle(1)) == ("", "")
    made.restore(older)
    assert verdict(made, good_bundle(1)) == ("", "")
    assert before == sorted(tmp_path.rglob("*"))


def test_a_private_server_is_reached_with_ones_papers(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """As boards do: its CA is named, and it may want to know who asks."""
    if find_nginx() is None:
        missing("the program nginx")
    authority = Authority(tmp_path)
    me, more = authority.issue("me"), f"ssl_client_certificate {authority.file};"
    home, pair = tmp_path / "nginx", authority.issue()
    with StaticServer(home, made.path, pair, f"{more} ssl_verify_client on;") as server:

        def ask(*options: str) -> tuple[int, str]:
            result = verify(made, good_bundle(1), "--repository", server.url, *options)
            return result.exit_code, " ".join(result.stdout.split())

        ca, cert = ("--ca", authority.file), ("--cert", me.certificate)
        assert ask(*ca, *cert, "--key", me.key)[0] == 0
        whole = tmp_path / "whole.pem"
        parts = [Path(file).read_bytes() for file in (me.certificate, me.key)]
        whole.write_bytes(b"".join(parts))
        assert ask(*ca, "--cert", str(whole))[0] == 0
        assert ask(*ca)[0] == 1
        code, said = ask()
        assert (code, "a CA that is not trusted here" in said) == (1, True)


def test_another_kind_of_address_is_a_wrong_setting(made: SpoiledRepository) -> None:
    """What is neither a directory nor a web address ends with exit code 2."""
    file, root = str(made.path.with_name("root.json")), str(made.file("root"))
    command = ["verify", file, "--repository", "ftp://example.org", "--root", root]
    result = CliRunner().invoke(cli, command)
    assert (result.exit_code, "[settings]" in result.stderr) == (2, True)
