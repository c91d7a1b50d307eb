"""How parsers of untrusted bytes end: with a value, or with one kind of error."""

from collections.abc import Callable

from agent.errors import BundleRefusedError


def outcome(parse: Callable[[bytes], object], raw: bytes) -> str:
    """Return the reason that some bytes are refused for, or nothing."""
    try:
        parse(raw)
    except BundleRefusedError as err:
        return err.reason
    return ""
