"""What the ``watch`` benchmark needs beyond the product: libraries of tests."""

import importlib.util

NEEDS = {"sklearn": "scikit-learn", "scipy": "scipy"}


def missing() -> list[str]:
    """Return names of packages that have to be installed first."""
    return [
        package
        for module, package in NEEDS.items()
        if importlib.util.find_spec(module) is None
    ]
