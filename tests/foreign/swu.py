"""A ``.swu`` as SWUpdate's owners build it, which gooseBit takes, with our pointer.

Source: cpio(5), "New CRC Format"; SWUpdate, "Software images: sw-description".
"""

import json

from agent.core.ddi_pointer import KEY, MEMBER

_END = "TRAILER!!!"


def make_swu(version: str, *, target: str | None = None, more: bytes = b"") -> bytes:
    """Return an image.

    Args:
        version: The image's own; servers compare it.
        target: Path of the TUF target that the pointer names; without, there is none.
        more: Content of one more member.
    """
    description = f'software =\n{{\n  version = "{version}";\n}};\n'.encode()
    members = {"sw-description": description}
    if target is not None:
        members[MEMBER] = json.dumps({KEY: target}).encode()
    if more:
        members["more"] = more
    parts = [_member(name, it, at) for at, (name, it) in enumerate(members.items(), 1)]
    whole = b"".join([*parts, _member(_END, b"", 0)])
    return whole + bytes(-len(whole) % 512)


def _member(name: str, content: bytes, inode: int) -> bytes:
    """Return a member: header, name, content, each padded to four bytes."""
    mode = 0o100644 if inode else 0
    fields = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1]
    fields.append(sum(content) & 0xFFFFFFFF)  # what "crc" calls a checksum
    header = b"070702" + b"".join(b"%08X" % it for it in fields)
    head = header + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(raw: bytes) -> bytes:
    """Return bytes with zeros up to a multiple of four."""
    return raw + bytes(-len(raw) % 4)
