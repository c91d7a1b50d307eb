"""The model that is profiled: a bundle, or a description that is packed in memory."""

from pathlib import Path

from msgspec.structs import replace

from agent.core.container import parse_container, render_container
from agent.core.manifest import Variant
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.trust.bundle import PROFILE_ENTRY, Bundle, open_bundle

DESCRIPTION = ".toml"  # what a pack.toml ends in; anything else is a bundle


def open_model(path: Path) -> tuple[Bundle, bytes]:
    """Return the bundle that MODEL names, and its bytes.

    A description is packed without the profile it names: that is what is being made.

    Raises:
        SettingsError: It cannot be read (``settings``).
        AgentError: It cannot be packed, or is no bundle.
    """
    content = _pack(path) if path.suffix == DESCRIPTION else _read(path)
    return open_bundle(content, max_bytes=len(content)), content


def with_profile(content: bytes, profile: bytes) -> bytes:
    """Return a bundle that holds this profile, and all else as it was."""
    entries = dict(parse_container(memoryview(content)))
    entries[PROFILE_ENTRY] = memoryview(profile)
    return render_container(entries)


def chosen_variants(bundle: Bundle, names: tuple[str, ...]) -> tuple[Variant, ...]:
    """Return the variants that are profiled: those named, else all.

    Raises:
        SettingsError: ``settings``: one is unknown.
    """
    there = {variant.name: variant for variant in bundle.manifest.variants}
    for name in names:
        if name not in there:
            raise SettingsError(
                f"--variant: no variant is called {name!r}",
                reason=Reason.SETTINGS,
                todo=f"Name some of {', '.join(there)}.",
            )
    return tuple(there[name] for name in dict.fromkeys(names or there))


def _pack(path: Path) -> bytes:
    """Pack a description."""
    from agent.cli.examiner import ChildExaminer
    from agent.publish.pack import load_description, pack

    try:
        described = replace(load_description(path), profile="")
        return pack(described, path.parent, ChildExaminer())
    except SettingsError as err:
        raise SettingsError(
            f"{path}: {err}",
            reason=err.reason,
            todo="`tinyward pack --help` shows the keys.",
        ) from err


def _read(path: Path) -> bytes:
    """Read a bundle, of a size that boards take.

    Raises:
        SettingsError: ``settings``.
    """
    from agent.cli.inspect import read_limited
    from agent.settings import UpdateSettings

    max_bytes = int(UpdateSettings().max_bundle_mb * 1_000_000)
    content = read_limited(path, max_bytes)
    if len(content) > max_bytes:
        raise SettingsError(
            f"{path}: more than {max_bytes} bytes",
            reason=Reason.SETTINGS,
            todo="Name a .bundle, or a pack.toml.",
        )
    return content
