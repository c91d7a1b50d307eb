"""Whose copy of a model runs, in one line for people."""

from typing import Final

WORDS: Final = {
    "own": "this board's own copy, verified at activation",
    "marked": "marked as this board's copy, not verified at activation",
}


def say_copy(copy: str, *, sealed: bool) -> str:
    """Return how the model that runs is protected; empty where it is not.

    Args:
        copy: As the snapshot says it; what is not known here counts as nothing.
        sealed: It lies encrypted on the disk.

    >>> say_copy("own", sealed=True)
    "sealed, this board's own copy, verified at activation"
    >>> say_copy("", sealed=True)
    'sealed, the same for all boards'
    >>> say_copy("", sealed=False)
    ''
    """
    said = WORDS.get(copy, "the same for all boards" if sealed else "")
    return f"sealed, {said}" if sealed else said
