"""A board behind NAT: its own Prometheus sends, and the fleet's receives, with breaks.

Both are Debian's package; the configurations are those that ``observe export`` writes.
"""

import re
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import cli
from tests.conftest import find_tool
from tests.e2e.conftest import MakeBoard
from tests.fakes.daemon_process import wait_until
from tests.fakes.fleet import Fleet
from tests.fakes.prometheus_process import PrometheusProcess

SCRAPES = "prometheus_target_interval_length_seconds_count"
MISSED = 12  # scrapes while the receiver is away


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Give the folder that ``tinyward observe export`` wrote."""
    folder = tmp_path / "exported"
    assert CliRunner().invoke(cli, ["observe", "export", str(folder)]).exit_code == 0
    return folder


def changed(text: str, **words: str) -> str:
    """Return a configuration with words that stand in it once replaced."""
    for old, new in words.items():
        spelled = {
            "target": '"127.0.0.1:9797"',
            "url": "http://127.0.0.1:9090/api/v1/write",
            "interval": "scrape_interval: 15s",
            "pause": "max_backoff: 30s",
        }[old]
        assert text.count(spelled) == 1
        text = text.replace(spelled, new)
    return text


def receiver_of(exported: Path, folder: Path) -> PrometheusProcess:
    """Return the fleet's Prometheus as the exported README has it."""
    readme = (exported / "README.md").read_text()
    (storage,) = re.findall(r"```yaml\n(storage:.*?)```", readme, re.DOTALL)
    (flag,) = re.findall(r"--web\.enable-remote-write-\w+", readme)
    return PrometheusProcess(folder, storage, flag)


def scrapes(agent: PrometheusProcess) -> float:
    """Return how often the agent has scraped its board."""
    return sum(n for name, n in agent.metrics().items() if name.startswith(SCRAPES))


def stored_between(receiver: PrometheusProcess, begin: float, end: float) -> int:
    """Return how many times between two moments the board was seen to be up."""
    rows = receiver.query('up{job="tinyward",instance="board-7"}[10m]')
    return sum(begin < float(at) < end for row in rows for at, _ in row["values"])


def test_an_outage_of_the_receiver_leaves_no_gap(
    make_board: MakeBoard, fleet: Fleet, exported: Path, tmp_path: Path
) -> None:
    """What was measured while nobody took it is there afterwards, all of it."""
    receiver = receiver_of(exported, tmp_path / "receiver")
    fleet.publish(1)
    board = make_board()
    with board, receiver:
        board.wait_version(1)
        host, port = board.address
        config = changed(
            (exported / "prometheus-agent.yaml").read_text(),
            target=f'"{host}:{port}"',
            url=f"http://127.0.0.1:{receiver.port}/api/v1/write",
            interval="scrape_interval: 200ms\n  scrape_timeout: 200ms",
            # It would wait 5 s for more to send at once.
            pause="max_backoff: 1s\n      batch_send_deadline: 200ms",
        )
        with PrometheusProcess(tmp_path / "agent", config, agent=True) as agent:
            sent = 'tinyward_samples_total{instance="board-7",outcome="ok"} > 0'
            wait_until(lambda: receiver.values(sent), "samples at the receiver")
            receiver.kill()
            begin, first = time.time(), scrapes(agent)  # noqa: TID251 - theirs, too
            wait_until(lambda: scrapes(agent) >= first + MISSED, "scrapes nobody took")
            missed, end = scrapes(agent) - first, time.time()  # noqa: TID251 - as above
            receiver.start()
            # One may have begun before the first moment, and ended after it.
            wait_until(
                lambda: stored_between(receiver, begin, end) >= missed - 1,
                f"{missed:.0f} samples of the time between",
            )
            latest = stored_between(receiver, end, float("inf"))
            wait_until(
                lambda: stored_between(receiver, end, float("inf")) > latest,
                "newer ones",
            )


def test_nothing_that_is_shipped_listens_beyond_loopback(exported: Path) -> None:
    """Every address and flag in the examples names this machine, or an example."""
    said = [
        (exported / name).read_text() for name in ("README.md", "prometheus-agent.yaml")
    ]
    listening = re.findall(r"--web\.listen-address=(\S+)", "".join(said))
    assert [address.rpartition(":")[0] for address in listening] == ["127.0.0.1"] * 2
    urls = re.findall(r"https?://([\w.-]+)", "".join(said))
    assert set(urls) == {"127.0.0.1"}


def test_promtool_takes_what_is_shipped(exported: Path, tmp_path: Path) -> None:
    """The agent's file as it is, and with what its comments would say."""
    tool = find_tool("promtool")
    text = (exported / "prometheus-agent.yaml").read_text()
    assert text.count("CHANGE") == 2
    secured = re.sub(
        r"^    # ((?:tls_config|basic_auth|  ).*)$", r"    \1", text, flags=re.MULTILINE
    )
    for name in ("ca_file", "cert_file", "key_file", "password_file"):
        secured = re.sub(rf"({name}:) \S+", rf"\1 {exported / 'README.md'}", secured)
    variants = {"as it is": text, "secured": secured}
    assert secured.count("basic_auth:") == 1
    for name, config in variants.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(config)
        ran = subprocess.run(
            [tool, "check", "config", "--agent", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
