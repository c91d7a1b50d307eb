"""Preprocess: the manifest's steps, performed on samples.

The rules this folder keeps: no step writes to its argument or again to its result;
everything that does not depend on the sample is computed at build; Pillow is imported
only by models and sources that need it.
"""

from agent.worker.preprocess.chain import Preprocess, build_preprocess

__all__ = ["Preprocess", "build_preprocess"]
