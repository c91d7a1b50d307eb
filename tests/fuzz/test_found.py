"""What the storm found, once each: what escaped then is refused now."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from agent.core.manifest import parse_manifest, render_manifest
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from tests.fakes.bundles import manifest
from tests.fuzz.board import Found, FuzzedBoard
from tests.fuzz.fleet import Fleet, Publication
from tests.fuzz.json_text import Tree


@pytest.mark.parametrize("name", [7, None, True, 1.5])
def test_24_29_a_role_whose_name_is_no_text(tmp_path: Path, name: object) -> None:
    """Well signed by targets, it ended the look with a TypeError, and so the daemon."""
    fleet = Fleet(tmp_path / "repository")

    def spell(signed: Tree) -> bytes:
        signed["delegations"]["roles"][0]["name"] = name
        return fleet.sign("targets", signed)

    files = fleet.seal(spell={"targets": spell})
    with closing(FuzzedBoard(tmp_path, fleet)) as board:
        shown = board.show(Publication(files, signed=True, stolen=True))
        assert shown == Found(Reason.METADATA)


def test_half_a_character_is_no_text() -> None:
    """A label that JSON can spell and UTF-8 cannot broke whoever wrote it down."""
    tree = json.loads(render_manifest(manifest()))
    tree["labels"][0] = "\ud800"
    with pytest.raises(BundleRefusedError) as caught:
        parse_manifest(json.dumps(tree).encode())
    assert caught.value.reason == Reason.MANIFEST
