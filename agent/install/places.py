"""Where everything of an installation lies, below one root.

The rules this module keeps:
 * Every path is named here once, as the running system sees it; ``Places.at`` says
   where that is below a mounted image or a test's tree.
"""

from dataclasses import dataclass
from pathlib import Path

# Two, as with the partitions of an image update: what runs is never written to.
SLOTS = ("a", "b")
SLOT_FOLDER = "/opt/tinyward"
# Of one name beside it: true below any root, and replaced by one rename.
CURRENT = f"{SLOT_FOLDER}/current"
PREVIOUS = f"{SLOT_FOLDER}/previous"
# Exists from before a new version takes over until it was READY once.
TRIAL = f"{SLOT_FOLDER}/trial"
# Says what the running service was started with, so that a change is noticed.
STARTED = f"{SLOT_FOLDER}/started"
# The state as the version before left it, while a new one is on trial.
BEFORE = f"{SLOT_FOLDER}/before-upgrade"
# Shared by all slots: the demo's signed model must outlive the slot that made it.
DEMO = f"{SLOT_FOLDER}/demo"
# Apart from root.json, as on any board: trust does not come from the repository.
DEMO_REPOSITORY = f"{DEMO}/repository"
DEMO_ROOT = f"{DEMO}/root.json"
DEMO_STREAM = f"{DEMO}/digits-stream.npz"
SETTINGS_FOLDER = "/etc/tinyward"
SETTINGS = f"{SETTINGS_FOLDER}/agent.toml"
FLEET_ROOT = f"{SETTINGS_FOLDER}/root.json"
STATE = "/var/lib/tinyward"
IDENTITY = f"{STATE}/identity"
RUN = "/run/tinyward"
PROGRAM = "/usr/local/bin/tinyward"
PROGRAM_TARGET = f"{CURRENT}/bin/tinyward"
UNIT_FOLDER = "/etc/systemd/system"
SERVICE = "tinyward.service"
FALLBACK = "tinyward-fallback.service"
DROP_INS = f"{UNIT_FOLDER}/{SERVICE}.d"
SYSUSERS = "/etc/sysusers.d/tinyward.conf"
TMPFILES = "/etc/tmpfiles.d/tinyward.conf"
USER = "tinyward"


@dataclass(frozen=True, slots=True)
class Places:
    """The tree that is installed into."""

    root: Path = Path("/")

    def at(self, path: str) -> Path:
        """Return where a path of the running system is for this process.

        >>> str(Places(Path("/mnt")).at("/opt/tinyward/current"))
        '/mnt/opt/tinyward/current'
        """
        return self.root / path.lstrip("/")

    def slot_of(self, prefix: Path) -> str:
        """Return which slot a Python prefix is, or nothing.

        >>> Places().slot_of(Path("/opt/tinyward/b")), Places().slot_of(Path("/usr"))
        ('b', '')
        """
        for slot in SLOTS:
            # Resolved: on some boards /opt is a link to the disk that has room, and
            # `current/bin/python` is one of the slots as well.
            if self.at(f"{SLOT_FOLDER}/{slot}").resolve() == prefix.resolve():
                return slot
        return ""


def other_slot(slot: str) -> str:
    """Return the slot that an upgrade from this one fills.

    >>> other_slot("a")
    'b'
    """
    return SLOTS[1 - SLOTS.index(slot)]
