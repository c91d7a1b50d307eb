"""The service on a board: its slots, user, directories, settings and units.

The rules this folder keeps:
 * What is done is planned first, as values that can be shown; performing the same plan
   again changes nothing.
 * The state directory and the operator's settings are never overwritten or removed
   unless ``--purge`` asks for it.
"""
