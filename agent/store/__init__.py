"""The disk: what this board keeps, and keeps whole through any loss of power.

The rules this folder keeps:
 * One daemon at a time: the state directory is locked before anything is read.
 * ``state.db`` says what is true in one transaction at a time; objects are named by
   their digest, read-only, and hashed again before anyone parses them.
 * Atomic and durable: write, fsync the file, rename, fsync the directory; what has not
   come that far is rubbish and is removed at the next start.
 * Nothing outside comes through here but ``DeviceError`` (the operator has to act) and
   ``BundleRefusedError`` (the bytes are not the ones that were signed).
"""

from agent.store.inbox import Inbox
from agent.store.staging import Staging
from agent.store.store import Store

__all__ = ["Inbox", "Staging", "Store"]
