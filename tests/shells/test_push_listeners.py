"""The operator's commands against the product's own listeners, over TLS and locally."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.core.targets import Wanted
from agent.core.updates import SetAside
from agent.endpoint.local import LocalEndpoint
from agent.endpoint.rate import Rate
from agent.endpoint.services import Services
from tests.fakes.control_bench import Bench, bench, listening
from tests.fakes.fleet_ca import FleetCA, Wish
from tests.fakes.operations import MemoryDesk, MemoryInbox
from tests.fakes.slices import bundle, group, make_tree, stored, write_tree
from tests.fakes.snapshots import FixedFacts

NEW = bundle(3, 2_500_000)  # several pieces of a megabyte
TREE = make_tree({3: NEW}, {"fleet/groups/all": group(("door", 3))})
BUNDLE = stored("models/kws/3.bundle", NEW)
Story = Callable[[], Awaitable[None]]


async def tinyward(*words: str) -> Result:
    """Run a command while the listeners' loop goes on."""

    def run() -> Result:
        return CliRunner().invoke(cli, words, env={"COLUMNS": "80"})

    return await asyncio.to_thread(run)


def papers(made: Bench, role: str = "operator") -> list[str]:
    """Return the options with the certificate of a role."""
    leaf, ca = made.ca.role(role), made.folder / "ca.pem"
    ca.write_bytes(made.ca.pem)
    return ["--cert", str(leaf.certificate), "--key", str(leaf.key), "--ca", str(ca)]


def vouch(file: str, *authorities: FleetCA) -> None:
    """Write the file of CAs that an operator believes."""
    Path(file).write_bytes(b"".join(each.pem for each in authorities))


def address(made: Bench) -> str:
    """Return how an operator names the board."""
    return f"board-1@127.0.0.1:{made.port}"


def test_a_push_over_the_control_listener(tmp_path: Path) -> None:
    """Roles, pieces, ranges and JSON are as the listener wants them."""
    repository = write_tree(tmp_path / "repo", TREE)

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            words = ["push", address(made), *papers(made), "--no-wait"]
            result = await tinyward(*words, "--repository", str(repository))
            assert result.exit_code == 0, result.stderr
            assert made.inbox.placed == {
                path: TREE[path] for path in set(TREE) - {"metadata/1.snapshot.json"}
            }
            assert [what for what, _ in made.desk.asked] == ["look"]

    asyncio.run(story())


def test_an_order_over_the_control_listener(tmp_path: Path) -> None:
    """The desired state is read, merged, and put back with its next generation."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            shown = made.facts.shown
            update = replace(shown.update, orchestrator="push")
            made.facts.shown = replace(shown, update=update)
            words = ["push", address(made), *papers(made), "--no-wait"]
            for version in (3, 4):
                result = await tinyward(*words, "--assign", f"door={version}")
                assert result.exit_code == 0, result.stderr
            pushed = made.desk.pushed
            assert pushed is not None
            assert (pushed.generation, pushed.pipelines) == (
                2,
                {"door": Wanted("kws", 4)},
            )

    asyncio.run(story())


@pytest.mark.parametrize("role", ["observer", "scraper"])
def test_42_roles_that_may_not_push(tmp_path: Path, role: str) -> None:
    """Refused with the role's reason, before a byte of the slice was taken."""
    repository = write_tree(tmp_path / "repo", TREE)

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            words = ["push", address(made), *papers(made, role), "--no-wait"]
            result = await tinyward(*words, "--repository", str(repository))
            assert (result.exit_code, "[role]" in result.stderr) == (1, True)
            assert (made.inbox.partial, made.desk.asked) == ({}, [])

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ended", "me.pem ended on 2001-09-09"),
        ("foreign", "is issued by CN=elsewhere, not by --ca"),
        ("believed here", "[control] client_ca? Then see the board's log"),
    ],
)
def test_42_operators_that_the_listener_hangs_up_on(
    tmp_path: Path, fault: str, said: str
) -> None:
    """The board closes without a word; the reason is ours to find, by our own files."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            ca = papers(made)[-2:]
            if fault == "ended":
                leaf = made.ca.issue(Wish("me", ends=1e9))
            else:
                stranger = FleetCA(tmp_path, "elsewhere", key="else")
                leaf = stranger.role("operator")
                if fault == "believed here":
                    vouch(ca[1], made.ca, stranger)
            words = ["--cert", str(leaf.certificate), "--key", str(leaf.key)]
            result = await tinyward("status", "--board", address(made), *words, *ca)
        shown = " ".join(result.stderr.split())
        assert result.exit_code == 1
        assert "accepted no request with this certificate" in shown
        assert (said in shown, "[certificate]" in shown) == (True, True)

    asyncio.run(story())


def test_a_board_that_limits_requests_is_pushed_to_all_the_same(
    tmp_path: Path,
) -> None:
    """429 slows an upload down; it does not end it."""
    repository = write_tree(tmp_path / "repo", TREE)

    async def story() -> None:
        rate = Rate(per_s=20.0, burst=8.0)
        async with listening(bench(tmp_path, rate=rate)) as made:
            words = ["push", address(made), *papers(made), "--no-wait"]
            result = await tinyward(*words, "--repository", str(repository))
            assert result.exit_code == 0, result.stderr
            assert made.inbox.placed[BUNDLE] == NEW

    asyncio.run(story())


def test_a_status_over_the_control_listener(tmp_path: Path) -> None:
    """An observer may read everything that is shown."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            words = ["status", "--board", address(made), *papers(made, "observer")]
            result = await tinyward(*words)
            assert result.exit_code == 0, result.stderr
            assert "waits for window until 2026-11-18 22:00 UTC" in result.stdout
            assert "root EXPIRED 1 h ago" in result.stdout
            shown = json.loads((await tinyward(*words, "--json")).stdout)
            assert shown["state"]["update"]["decisions"][0]["reason"] == "window"
            assert shown["updates"]["reports"][0]["id"] == 7

    asyncio.run(story())


def test_the_same_over_the_unix_socket(tmp_path: Path) -> None:
    """import, list, rollback and forgive: whoever may open the socket is operator."""
    repository = write_tree(tmp_path / "repo", TREE)
    desk = MemoryDesk(aside=[SetAside("ab" * 32, "crash", 9.0)])
    inbox = MemoryInbox()
    path = tmp_path / "control.sock"

    async def story() -> None:
        endpoint = LocalEndpoint(FixedFacts(), "", path, services=Services(desk, inbox))
        await endpoint.open()
        here = ["--socket", str(path)]
        try:
            import_ = ["update", "import", str(repository), "--no-wait", *here]
            results = [
                await tinyward(*import_),
                await tinyward("update", "list", *here),
                await tinyward("update", "forgive", "ab", *here),
                await tinyward("update", "rollback", "-y", "--no-wait", *here),
                await tinyward("update", "rollback", "-y", "--no-wait", *here),
            ]
        finally:
            await endpoint.close()
        assert [result.exit_code for result in results] == [0, 0, 0, 0, 1]
        assert "an update is in ROLLING_BACK [busy]" in results[-1].stderr
        assert sha256(inbox.placed[BUNDLE]).digest() == sha256(NEW).digest()
        asked = [what for what, _ in desk.asked]
        assert asked == ["look", "forgive", "rollback door"]

    asyncio.run(story())
