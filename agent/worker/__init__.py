"""The data plane: one process per pipeline that turns samples into predictions.

The rules this folder keeps:
 * The whole sample path is here: no hop to another process or thread per sample, no
   lock, no log line per sample, nothing allocated that can be hoisted.
 * One thread runs the loop; a second receives control messages and builds candidates.
 * The process locks itself in before it imports numpy, and holds no key material.
 * ``engines`` is the only door to LiteRT and tflite-runtime.
"""
