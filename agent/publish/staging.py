"""What was asked for and is not signed yet: ``REPO/staged.json``."""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agent.core.deltas import SignedDelta
from agent.core.desired import check_dates
from agent.core.manifest import ModelName
from agent.core.reasons import Reason
from agent.core.targets import (
    BundleFields,
    GroupFile,
    MinAgent,
    Percent,
    Revocations,
    Salt,
    SignedTarget,
    Wanted,
    bundle_path,
    device_path,
    group_path,
)
from agent.errors import BundleRefusedError, SettingsError
from agent.publish.files import write_durably

_FILE = "staged.json"


class Staged(Struct, frozen=True, forbid_unknown_fields=True):
    """What the next publication changes.

    Attributes:
        bundles: By path; their content is stored already.
        groups: Desired states by group.
        devices: Desired states by board id; None ends that board's exception.
        revoked: Everything that is revoked from then on; None keeps what is.
        unlisted: Paths of bundles that are listed no longer.
        deltas: By path; their content is stored already.
    """

    bundles: dict[str, SignedTarget] = {}
    groups: dict[str, GroupFile] = {}
    devices: dict[str, GroupFile | None] = {}
    revoked: Revocations | None = None
    unlisted: tuple[str, ...] = ()
    deltas: dict[str, SignedDelta] = {}

    def __bool__(self) -> bool:
        """Tell whether anything waits for a signature."""
        return bool(self.groups or self.devices) or self.needs_targets

    @property
    def needs_targets(self) -> bool:
        """Whether the targets role has to sign."""
        changed = self.bundles or self.unlisted or self.deltas
        return bool(changed) or self.revoked is not None

    def without_deltas(self, digests: Collection[str]) -> "Staged":
        """Return the same without the deltas from or to any of these bundles."""
        kept = {
            path: delta
            for path, delta in self.deltas.items()
            if not {delta.fields.from_sha256, delta.fields.to_sha256} & set(digests)
        }
        return replace(self, deltas=kept)

    def states(self) -> dict[str, GroupFile | None]:
        """Return the desired states by path; None where one ends."""
        groups = {group_path(name): file for name, file in self.groups.items()}
        devices = {device_path(name): file for name, file in self.devices.items()}
        return {**groups, **devices}

    def with_state(self, path: str, file: GroupFile) -> "Staged":
        """Return the same with one more desired state."""
        folder, _, name = path.rpartition("/")
        if folder == device_path("").rstrip("/"):
            return replace(self, devices={**self.devices, name: file})
        return replace(self, groups={**self.groups, name: file})


class Assignment(Struct, frozen=True):
    """How a group is rolled out; None keeps what the group says now.

    Attributes:
        percent: Share of boards that take part.
        salt: Draws those boards; kept, so that widening a rollout keeps its boards.
        paused: Nothing new starts while true.
        not_before: UTC, ISO 8601.
        window: ``HH:MM-HH:MM`` in UTC, or with `` local`` behind it.
        removed: Pipelines that the group no longer speaks about.
    """

    percent: float | None = None
    salt: str | None = None
    paused: bool | None = None
    not_before: str | None = None
    window: str | None = None
    removed: tuple[str, ...] = ()


def load_staged(repository: Path) -> Staged:
    """Return what is staged.

    Raises:
        SettingsError: The file is damaged.
    """
    path = repository / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Staged)
    except FileNotFoundError:
        return Staged()
    except (OSError, msgspec.MsgspecError) as err:
        raise SettingsError(
            f"{path}: {err}",
            reason=Reason.SETTINGS,
            todo="Remove it, then add and assign again.",
        ) from err


def save_staged(repository: Path, staged: Staged) -> None:
    """Save what is staged.

    Raises:
        DeviceError: It cannot be written.
    """
    if staged:
        content = msgspec.json.format(msgspec.json.encode(staged), indent=2)
        write_durably(repository / _FILE, content)
    else:
        (repository / _FILE).unlink(missing_ok=True)


def next_group(
    known: GroupFile | None,
    wanted: Mapping[str, tuple[str, int]],
    assignment: Assignment,
) -> GroupFile:
    """Return a group's desired state: what it said, changed as asked.

    The generation is left to the caller, who knows what is published.

    Raises:
        SettingsError: Nothing is asked, or a name, a number, a date or a window is
            not allowed.
    """
    if not wanted and assignment == Assignment():
        raise _unusable("nothing to change: no pipeline and no option is named")
    before = known or GroupFile(generation=1, pipelines={})
    pipelines = {**before.pipelines}
    for name, (model, version) in wanted.items():
        require(name, ModelName, "pipeline {}: a-z, 0-9, - and _, at most 64 of them")
        pipelines[name] = Wanted(model, version)
    for name in assignment.removed:
        if pipelines.pop(name, None) is None:
            raise _unusable(f"the group says nothing about pipeline {name!r}")
    asked = {
        key: value
        for key in ("percent", "salt", "paused", "not_before", "window")
        if (value := getattr(assignment, key)) is not None
    }
    after = replace(before, pipelines=pipelines, **asked)
    if after.percent < 100 and not after.salt:
        after = replace(after, salt=secrets.token_hex(8))
    return _checked_group(after)


def _checked_group(group: GroupFile) -> GroupFile:
    """Return a desired state that boards can read."""
    require(group.percent, Percent, "percent {}: a number from 0 to 100")
    require(group.salt, Salt, "salt {}: at most 64 characters")
    try:
        check_dates(group)
        return msgspec.convert(msgspec.to_builtins(group), GroupFile)
    except (msgspec.ValidationError, BundleRefusedError) as err:
        raise _unusable(str(err)) from err


def require(value: object, kind: object, rule: str) -> None:
    """Refuse a value that signed metadata may not have, in words for people.

    Args:
        value: As it was given.
        kind: The type that boards parse it as.
        rule: What is allowed; ``{}`` stands for the value.

    Raises:
        SettingsError: It is of another type.
    """
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as err:
        raise _unusable(rule.format(repr(value))) from err


def _unusable(what: str) -> SettingsError:
    """Return the error for something that boards would refuse."""
    return SettingsError(
        what,
        reason=Reason.SETTINGS,
        todo="Correct it; the command's --help shows how it is written.",
    )


def describe_bundle(content: bytes, **fields: object) -> SignedTarget:
    """Return how a bundle will be listed, by its bytes and its signed fields.

    Raises:
        SettingsError: A field is not allowed.
    """
    require(
        fields.get("min_agent", ""), MinAgent, "min-agent {}: a version such as 1.2.3"
    )
    sha256 = hashlib.sha256(content).hexdigest()
    plain = {"plain_sha256": sha256, "plain_bytes": len(content)}
    checked = checked_fields({**plain, **fields})
    path = bundle_path(checked.model, checked.version)
    return SignedTarget(path, len(content), sha256, checked)


def checked_fields(fields: object) -> BundleFields:
    """Return the signed fields of a bundle.

    Raises:
        SettingsError: One of them is not allowed.
    """
    try:
        return msgspec.convert(fields, BundleFields)
    except msgspec.ValidationError as err:
        raise _unusable(f"bundle fields: {err}") from err
