"""Make the demo's reference profiles from the demo stream, by the product itself.

Run from this folder, with the product installed, after ``make_assets.py``::

    python make_profiles.py

Written: ``digits-1/profile.json`` and ``digits-2/profile.json``, which the
``pack.toml`` files beside them name. Groups are the writers of the digits, so
thresholds hold for handwriting that the reference has not seen. The same stream gives
the same bytes; run it again when a model, the stream or the feature code has changed.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = ("digits-1", "digits-2")


def make(out: Path) -> None:
    """Write the profile of each model below ``out``."""
    for model in MODELS:
        folder = out / model
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                *("tinyward", "profile", str(HERE / model / "pack.toml")),
                *("--data", str(HERE / "digits-stream.npz"), "--array", "images"),
                *("--groups", "writers", "--labels", "labels"),
                # 8 x 8 gray pixels without a picture's steps look like bands of sound.
                *("--kind", "image"),
                *("-o", str(folder / "profile.json")),
            ],
            check=True,
        )


def main() -> None:
    """Make both files, in this folder unless ``--out`` names another."""
    parser = argparse.ArgumentParser(description="Make the demo's profiles.")
    parser.add_argument("--out", type=Path, default=HERE)
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
