"""The disk: what this board keeps, and keeps whole through any loss of power.

The rules this folder keeps:
 * One daemon at a time: the state directory is locked before anything is read.
 * ``state.db`` says what is true in one transaction at a time; objects are named by
   their digest, read-only, and hashed again before anyone parses them.
 * Atomic and durable: write, fsync the file, rename, fsync the directory; what has not
   come that far is rubbish and is removed at the next start, or can be resumed.
 * What must never be forgotten (active models, version floors, quarantine, notes of
   others) lies here twice, sealed by a digest, and the copy is never behind.
 * What is uploaded for the air gap waits in the inbox, which proves nothing.
 * Nothing outside comes through here but ``DeviceError`` (the operator has to act),
   ``BundleRefusedError`` (the bytes are not the ones that were announced) and
   ``RequestRefusedError`` (what was asked for cannot be done as things are).
"""

from agent.store.anchors import Anchors
from agent.store.inbox import Inbox
from agent.store.staging import Staging
from agent.store.store import Store

__all__ = ["Anchors", "Inbox", "Staging", "Store"]
