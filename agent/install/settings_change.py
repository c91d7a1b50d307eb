"""What becomes of the agent.toml that a machine has already.

The rules this module keeps:
 * Whoever changed a byte of it owns it: it stays, and what it lacks is said.
 * One that nobody has changed is written anew where something is asked for that only
   settings can say, and keeps what was asked for before.
"""

import json

from agent.install.facts import Facts, Found, configured
from agent.install.places import FLEET_ROOT, SETTINGS
from agent.install.settings_file import is_shipped, join_settings
from agent.install.wanted import Wanted
from agent.settings import parse_settings


def settings_after(facts: Facts, wanted: Wanted) -> bytes:
    """Return the settings that there will be; empty where they may not be read."""
    found = facts.found.get(SETTINGS)
    if found is None:
        return wanted.settings
    have = found.content or b""
    if not (wanted.asks and is_shipped(have)):
        return have
    if wanted.own_settings:
        return wanted.settings
    fleet = wanted.fleet_root is not None
    return join_settings(have, wanted.settings, SETTINGS, fleet=fleet)


def rewrites(facts: Facts, wanted: Wanted) -> bool:
    """Whether settings that are there become others."""
    found = facts.found.get(SETTINGS)
    have = (found and found.content) or b""
    return bool(found) and settings_after(facts, wanted) != have


def what_lacks(found: Found, wanted: Wanted) -> str:
    """Say what own settings do not say of what was asked for."""
    if wanted.own_settings:
        same = found.content == wanted.settings
        return "" if same else "they were kept, and differ from the file you named"
    have, want = configured(found), parse_settings(wanted.settings)
    lacks = []
    if have and wanted.fleet_root is not None and have.update != want.update:
        repository = f'repository = "{want.update.repository}", ' * bool(
            want.update.repository
        )
        groups = f", groups = {json.dumps(want.update.groups)}"
        groups *= want.update.groups != ("all",)
        lacks.append(f'[update] {repository}root = "{FLEET_ROOT}"{groups}')
    if have and wanted.board and have.board.id != wanted.board:
        lacks.append(f'[board] id = "{wanted.board}"')
    if not lacks:
        return ""
    said = f"they are yours and were kept; put into them: {'; '.join(lacks)}"
    return f"{said}; then `systemctl restart tinyward`"
