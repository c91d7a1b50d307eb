"""Tinyward: verified TFLite models on edge boards, watched and updated over the air.

The folders are the architecture; arrows between them point down only
(``__main__ -> cli -> daemon -> siblings -> settings -> core -> errors``), and
siblings meet nowhere but in ``daemon`` and ``cli``, through Protocols.
"""

__version__ = "0.1.0"
# Unix seconds (UTC) of the day of this release: no clock is right that shows less, and
# no metadata that expired before it is believed. Raised with every release.
RELEASED_S = 1_795_305_600  # 2026-11-22
