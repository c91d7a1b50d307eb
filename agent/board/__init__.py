"""The machine: what it reads, what it is, and what it allows.

The rules this folder keeps:
 * It reads ``/proc``, ``/sys`` and the kernel's answers; it changes nothing.
 * The daemon's loop reads only what has proved to be quick; a thread reads the rest.
 * What a board does not have is NaN, 0 or an empty text, never an exception.
"""
