"""Which runtimes this machine has, found without importing any of them.

The rules this module keeps:
 * It imports neither numpy nor a runtime, so that whoever has neither may call it.
 * A runtime that is installed but cannot work here is not listed.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from agent.core.executors import EngineName

# Most wanted first: LiteRT is maintained, and 3 to 14 times faster on int8 models.
PACKAGES: Mapping[EngineName, str] = MappingProxyType(
    {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}
)
UNKNOWN_VERSION = "0"


def available_engines() -> dict[str, str]:
    """Return name -> version of each runtime that works here, most wanted first.

    tflite-runtime 2.14.0, its last release, was built for numpy 1 and dies with a
    ``SystemError`` under numpy 2, where it is therefore left out.
    """
    found: dict[str, str] = {
        name: version
        for name, package in PACKAGES.items()
        if (version := installed_version(package))
    }
    if installed_version("numpy").partition(".")[0] != "1":
        found.pop("tflite", None)
    return found


def installed_version(package: str) -> str:
    """Return the version of a top-level package, ``""`` if it is not installed.

    Read from the name of the ``*.dist-info`` folder beside it: ``importlib.metadata``
    would cost the start path 15 ms and an e-mail parser.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return ""
    site = Path(spec.origin).parent.parent
    for folder in site.glob(f"{package}-*.dist-info"):
        return folder.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return UNKNOWN_VERSION
