"""HTTP listeners: what the agent answers to scrapers, to operators and on the board.

The rules this folder keeps:
 * It is the only door to aiohttp.
 * The address of ``[local]`` shows and never changes anything; who changes something
   has a certificate with a role, or owns the 0600 unix socket.
 * Nothing is decided here: orders go to ``Operations``, bytes to ``Uploads``, and what
   is shown is one frozen snapshot.
 * Limits come before memory: bytes, connections and time are bounded for each peer.
"""
