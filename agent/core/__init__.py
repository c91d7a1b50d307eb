"""Decisions, pure: values in, values (with reasons) out.

The rules this folder keeps:
 * No IO, no clock, no environment, no chance, no logging; ``now``, ``installed``
   and ``board`` arrive as arguments. msgspec and json are the only parsers.
 * Modules the daemon imports never import numpy.
"""
