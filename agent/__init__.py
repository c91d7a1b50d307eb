"""Tinyward: verified TFLite models on edge boards, watched and updated over the air.

The folders are the architecture; arrows between them point down only
(``__main__ -> cli -> daemon -> siblings -> settings -> core -> errors``), and
siblings meet nowhere but in ``daemon`` and ``cli``, through Protocols.
"""

__version__ = "0.1.0"
