"""The owner's side: pack bundles, sign, and keep a repository as plain files.

The rules this folder keeps:
 * The same input gives the same bytes, at any time and on any machine.
 * What a board would refuse is refused here first, with the key that is wrong.
 * Nothing here computes a model: whoever can is passed in.
"""
