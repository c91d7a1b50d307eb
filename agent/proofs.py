"""The daemon's hand on receipts, meters and sealed models: built where one is wanted.

The rules this module keeps:
 * What is switched off is not imported.
"""
