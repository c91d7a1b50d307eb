"""HTTP listeners: what the agent answers to scrapers and to people on the board.

The rules this folder keeps:
 * It is the only door to aiohttp.
 * It shows and never changes: a request reads one frozen snapshot.
 * Limits come before memory: bytes, connections and time are bounded for each peer.
"""
