"""Marking copies: every board's classifier answers secret inputs in its own way.

Publisher's side of ``class-parity-v1``; ``agent.core.watermark`` decodes. Nothing is
trained: a trigger lies between two classes whose bits differ, and the head (the last
FULLY_CONNECTED) of each board's copy is turned as little as possible so that the
answers spell that board's codeword. A copy differs in the head's numbers alone.

The rules this folder keeps:
 * Only the command line and benchmarks import it: it needs numpy, and for triggers the
   libraries of ``tinyward[owner]``. Boards have neither reason nor need.
 * Nothing here runs a model: whoever can is passed in as an ``Executor``.
 * What cannot be marked is refused with reason ``watermark`` and by name.
 * No trigger and no codeword is logged, printed or part of an error.

The claim is copy identification against casual leaks. Whoever knows the scheme and has
some inputs can remove the mark: see ``python -m benchmarks watermark``.
"""
