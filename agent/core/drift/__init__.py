"""Drift: whether input and output still look as they did; pure arithmetic on numpy.

The rules this folder keeps:
 * Pure: no clock, no chance (generators are passed in), no IO; the daemon never imports
   it, since it needs numpy. What it says leaves as ``agent.core.watching``.
 * scipy, river and scikit-learn are oracles of tests and benchmarks, never used here.
"""
