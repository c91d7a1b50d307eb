"""The daemon's hand on its children: spawn, preflight, shadow, swap, watch, restart.

The rules this folder keeps:
 * The daemon never builds an interpreter, and never imports numpy.
 * Every child is started by exec from the main thread, dies with the daemon, and gets
   model bytes as a sealed memfd only.
 * A child is not trusted: its messages are parsed strictly, its block is checked.
"""
