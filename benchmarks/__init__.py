"""What Tinyward costs, measured beside the bare interpreter in the same run.

The rules this folder keeps:
 * Two sides of a comparison alternate in one run; medians and spread are reported, and
   ratios count, because machines differ and are shared.
 * Every row states its target; a missed one is printed as missed.
 * Models are public ones that are found, never downloaded: ``TINYWARD_MODELS``, or
   ``../shared/models`` beside the repository; without them the demo's model is used
   and the rows say so.
"""
