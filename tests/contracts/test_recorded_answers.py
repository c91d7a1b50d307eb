"""What real DDI servers answered, recorded, is what our parsers understand.

``tests/foreign`` holds the records to the servers; this runs where none of them is.
"""

import json
from typing import Any

import pytest

from agent.core.ddi_messages import parse_deployment, parse_poll
from agent.core.ddi_pointer import parse_pointer
from agent.core.targets import Wanted
from agent.errors import BundleRefusedError
from tests.conftest import REPOSITORY
from tests.foreign.swu import make_swu

RECORDED = REPOSITORY / "tests/data/ddi/goosebit.json"
ROOT = "http://127.0.0.1:60053/default/controller/v1/board-7"


def answer(what: str) -> bytes:
    """Return the body of a recorded answer."""
    rows: list[dict[str, Any]] = json.loads(RECORDED.read_text())["exchanges"]
    (found,) = [row for row in rows if row["what"] == what]
    return json.dumps(found["body"]).encode()


@pytest.mark.parametrize(
    ("what", "sleep_s", "links"),
    [
        # gooseBit wants a new board back in ten seconds; boards never hurry so.
        ("not registered yet", 30.0, {"configData": f"{ROOT}/configData"}),
        ("offered by a rollout", 30.0, {"deploymentBase": f"{ROOT}/deploymentBase/1"}),
        ("nothing new", 30.0, {}),
    ],
)
def test_polls(what: str, sleep_s: float, links: dict[str, str]) -> None:
    """Registration, an offer, and nothing."""
    poll = parse_poll(answer(what))
    assert (poll.sleep_s, poll.links) == (sleep_s, links)


def test_an_action() -> None:
    """One chunk without metadata, whose file may hold a pointer."""
    action = parse_deployment(answer("the action"), "deploymentBase")
    assert (action.id, action.download, action.update) == ("1", "forced", "forced")
    assert action.window_open
    (chunk,) = action.chunks
    (artifact,) = chunk.artifacts
    assert (chunk.target, artifact.filename) == ("", "digits-2.swu")
    assert artifact.href == f"{ROOT}/download"


def test_an_action_that_is_over() -> None:
    """gooseBit answers 200 and ``null``; that is no action, and no crash."""
    with pytest.raises(BundleRefusedError, match="deploymentBase"):
        parse_deployment(answer("an action that is over"), "deploymentBase")


def test_an_image_as_the_server_took_it() -> None:
    """The pointer is found in the image, whatever the image's own version."""
    image = make_swu("2.0.0", target="models/digits/2.bundle")
    assert parse_pointer(image) == Wanted("digits", 2)
