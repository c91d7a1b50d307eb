"""A forward-secure key: each checkpoint has its own, and none leads back to another.

The rules this module keeps:
 * A key is the hash of the one before it. Who takes a board over reads the key of now,
   and can make no MAC of what was signed before; who has the first one, the owner it
   was sealed to, can make all.

Law: ``key_at(first, n)`` is what ``n`` steps lead to.

Source: Forward Secure Sealing of systemd's journal; Bellare and Yee 2003.
"""

import hmac
from hashlib import sha256

KEY_BYTES = 32
_STEP = b"tinyward/v1 ratchet\0"
_MAC = b"tinyward/v1 checkpoint\0"


def sealing_context(origin: str, epoch: int) -> bytes:
    """Return what a first key is sealed with, so that it opens for one log alone.

    >>> sealing_context("tinyward/pi/5d3a9c01", 1)
    b'tinyward/v1|ratchet|tinyward/pi/5d3a9c01|1'
    """
    return f"tinyward/v1|ratchet|{origin}|{epoch}".encode()


def next_key(key: bytes) -> bytes:
    """Return the key that follows."""
    return sha256(_STEP + key).digest()


def key_at(first: bytes, steps: int) -> bytes:
    """Return the key that ``steps`` steps lead to."""
    for _ in range(steps):
        first = next_key(first)
    return first


def mac_of(key: bytes, epoch: int, note: bytes) -> bytes:
    """Return the MAC of a checkpoint.

    Args:
        key: Of its epoch.
        epoch: Its number.
        note: The signed note.
    """
    return hmac.digest(key, _MAC + epoch.to_bytes(8, "big") + note, "sha256")


def is_mac(key: bytes, epoch: int, note: bytes, mac: bytes) -> bool:
    """Whether a MAC is that of a checkpoint."""
    return hmac.compare_digest(mac_of(key, epoch, note), mac)
