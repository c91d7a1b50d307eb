"""``tinyward fleet targets``: what Prometheus is told, and to whom else it is not."""

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import cli
from agent.cli.fleet_targets import parse_listen, render_targets
from agent.core.addresses import Place
from agent.core.inventory import BoardTable
from agent.endpoint.guard import MAX_CONNECTIONS
from agent.errors import SettingsError

INVENTORY = """
[[board]]
id = "pi-1"
address = "PI-1.local"
groups = ["canary", "hall"]
labels = {site = "north"}
[[board]]
id = "pi-2"
address = "[2001:db8::2]:9443"
metrics = "10.0.0.2:9797"
groups = ["hall"]
"""
FIRST = {
    "targets": ["pi-1.local:8443"],
    "labels": {
        "instance": "pi-1",
        "site": "north",
        "groups": ",canary,hall,",
        "__scheme__": "https",
    },
}
SECOND = {
    "targets": ["10.0.0.2:9797"],
    "labels": {"instance": "pi-2", "groups": ",hall,"},
}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Give an inventory of two boards."""
    path = tmp_path / "fleet.toml"
    path.write_text(INVENTORY)
    return path


def targets(inventory: Path, *words: str) -> Result:
    """Run the command."""
    command = ["fleet", "targets", "--inventory", str(inventory), *words]
    return CliRunner().invoke(cli, command)


def test_each_board_is_a_target_with_its_labels(inventory: Path) -> None:
    """Over TLS where no plain address is said; by the board's id."""
    assert json.loads(targets(inventory).stdout) == [FIRST, SECOND]
    assert json.loads(targets(inventory, "--format", "http_sd").stdout) == [
        FIRST,
        SECOND,
    ]
    assert json.loads(targets(inventory, "--group", "canary").stdout) == [FIRST]


def test_a_group_of_none_is_a_mistake(inventory: Path) -> None:
    """An empty file would stop all scraping without a word."""
    ran = targets(inventory, "--group", "yard")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "no board belongs to the group 'yard' (groups: canary, hall)" in ran.stderr


def test_a_file_is_replaced_whole(inventory: Path, tmp_path: Path) -> None:
    """A reader of the old file keeps it; a failure leaves it as it was."""
    file = tmp_path / "new" / "fleet.json"
    assert targets(inventory, "-o", str(file)).exit_code == 0
    assert json.loads(file.read_text()) == [FIRST, SECOND]
    assert stat.S_IMODE(file.stat().st_mode) & 0o444 == 0o444  # Prometheus's user
    with file.open() as reader:
        assert targets(inventory, "-o", str(file), "--group", "canary").exit_code == 0
        assert json.loads(reader.read()) == [FIRST, SECOND]
    assert json.loads(file.read_text()) == [FIRST]
    inventory.write_text("board = []")
    assert targets(inventory, "-o", str(file)).exit_code == 2
    assert json.loads(file.read_text()) == [FIRST]
    assert [path.name for path in file.parent.iterdir()] == ["fleet.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], 'files: ["/etc/prometheus/tinyward/fleet.json"]'),
        (["-o", "/srv/it.json"], 'files: ["/srv/it.json"]'),
        (["--format", "http_sd"], 'url: "http://127.0.0.1:9798/"'),
        (["--serve", "127.0.0.1:7"], 'url: "http://127.0.0.1:7/"'),
        (["--cert", "/a.pem"], 'cert_file: "/a.pem"\n      key_file: "/a.pem"'),
        (["--cert", "/a.pem", "--key", "/b.pem"], 'key_file: "/b.pem"'),
        (["--ca", "/c.pem"], 'ca_file: "/c.pem"'),
    ],
)
def test_the_scrape_config_is_one(
    inventory: Path,
    require_tool: Callable[[str], Path],
    tmp_path: Path,
    words: list[str],
    said: str,
) -> None:
    """It says what the options say, and promtool reads it."""
    ran = targets(inventory, "--config", *words)
    assert ran.exit_code == 0, ran.output
    assert said in ran.stdout
    file = tmp_path / "prometheus.yml"
    file.write_text(re.sub(r'(_file:) ".*"', rf'\1 "{inventory}"', ran.stdout))
    judged = subprocess.run(
        [require_tool("promtool"), "check", "config", "--syntax-only", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--serve", "127.0.0.1:0", "-o", "x.json"],
        ["--serve", "127.0.0.1:0", "--format", "file_sd"],
        ["--serve", "0.0.0.0:9798"],
        ["--serve", "[::]:9798"],
        ["--serve", "10.0.0.1:9798"],
        ["--serve", "prometheus.example:9798"],
        ["--serve", "9798"],
        ["--serve", "127.0.0.1:70000"],
    ],
)
def test_nobody_else_is_told(inventory: Path, words: list[str]) -> None:
    """Where other machines could ask, or what makes no sense: exit code 2."""
    assert targets(inventory, *words).exit_code == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_loopback_has_several_names(host: str) -> None:
    """All of them are this machine alone."""
    assert parse_listen(f"{host}:9798", beyond_loopback=False).port == 9798


def test_who_says_so_may_listen_anywhere() -> None:
    """The flag's name says what it does."""
    place = parse_listen("0.0.0.0:0", beyond_loopback=True)
    assert place == Place("0.0.0.0", 0)  # noqa: S104 - nothing listens here


@given(st.text(max_size=20))
def test_any_text_is_a_place_on_loopback_or_an_error(text: str) -> None:
    """And nothing else than the one error."""
    try:
        place = parse_listen(text, beyond_loopback=False)
    except SettingsError:
        return
    assert place.host == "localhost" or place.host.startswith(("127.", "::1"))


@given(st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), unique=True, max_size=4))
def test_a_group_is_found_and_no_other_that_resembles_it(groups: list[str]) -> None:
    """By the pattern that the help names."""
    (row,) = json.loads(render_targets([BoardTable("b", "h", tuple(groups))]))
    label = row["labels"].get("groups", "")
    for group in [*groups, "a", "ab", "abcde"]:
        found = re.fullmatch(f".*,{group},.*", label) is not None
        assert found == (group in groups)


@pytest.fixture
def port(inventory: Path) -> Iterator[int]:
    """Give the port at which the command serves the inventory."""
    words = ["--inventory", str(inventory), "--serve", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "fleet", "targets", *words],
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        found = re.search(r":(\d+)/", server.stderr.readline())
        assert found is not None
        yield int(found[1])
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def ask(port: int, host: str = "") -> tuple[int, str, str]:
    """Return status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Host": host} if host else {}
        connection.request("GET", "/", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def rows(port: int) -> list[dict[str, Any]]:
    """Return the targets that are served."""
    status, kind, body = ask(port)
    assert (status, kind) == (200, "application/json; charset=utf-8")
    found: list[dict[str, Any]] = json.loads(body)
    return found


def test_what_is_served_follows_the_inventory(inventory: Path, port: int) -> None:
    """A change is there at once; a wrong file is 503 until it is mended."""
    assert rows(port) == [FIRST, SECOND]
    inventory.write_text(INVENTORY.partition('[[board]]\nid = "pi-2"')[0])
    assert rows(port) == [FIRST]
    inventory.write_text(INVENTORY.replace("pi-2", "pi-1"))
    status, _, body = ask(port)
    assert (status, "board[1].id: 'pi-1' is that of board[0]" in body) == (503, True)
    inventory.unlink()
    assert ask(port)[0] == 503
    # Replaced, as editors do it, by a file of the same size.
    aside = inventory.with_suffix(".new")
    aside.write_text(INVENTORY.replace("north", "south"))
    aside.replace(inventory)
    assert rows(port)[0]["labels"]["site"] == "south"
    aside.write_text(INVENTORY)
    os.utime(aside, ns=(0, inventory.stat().st_mtime_ns))
    aside.replace(inventory)
    assert rows(port) == [FIRST, SECOND]


def test_half_requests_keep_nobody_out(port: int) -> None:
    """There are so many at most, and they are cut off; then Prometheus is heard."""
    with ExitStack() as opened:
        halves = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            for _ in range(MAX_CONNECTIONS)
        ]
        for half in halves:
            half.sendall(b"GET / HT")
        beyond = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        beyond.settimeout(60)
        assert beyond.recv(4096).startswith(b"HTTP/1.1 503")
        with suppress(ConnectionResetError):  # aborted: either is an end
            assert halves[-1].recv(4096) == b""  # it came last, and is cut off last
    assert ask(port)[0] == 200


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:1", 200), ("evil.example", 421)]
)
def test_web_pages_of_strangers_read_nothing(port: int, host: str, status: int) -> None:
    """A name that somebody let point here (DNS rebinding) is none of ours."""
    assert ask(port, host)[0] == status


def test_a_port_that_is_taken_is_said(inventory: Path, port: int) -> None:
    """One line with what to do, no trace."""
    ran = targets(inventory, "--serve", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ran.stderr
