"""What the head of an ELF file says: for which machine, and for which pages."""

import struct
from dataclasses import dataclass
from pathlib import Path

# elf(5): the file's head from e_machine on, and a program header of 64 bits.
HEAD = struct.Struct("<16s H H I Q Q Q I H H H H H H")
SEGMENT = struct.Struct("<I I Q Q Q Q Q Q")
PT_LOAD = 1
ELF64_LITTLE = b"\x7fELF\x02\x01"


@dataclass(frozen=True, slots=True)
class Elf:
    """Machine of a file, and to how many bytes the least of its segments is aligned."""

    machine: int
    alignment: int


def read_elf(path: Path) -> Elf | None:
    """Read a file's head; None for what is no 64-bit little-endian ELF file."""
    content = path.read_bytes()
    if not content.startswith(ELF64_LITTLE) or len(content) < HEAD.size:
        return None
    head = HEAD.unpack_from(content)
    machine, table, size, count = head[2], head[5], head[9], head[10]
    rows = (SEGMENT.unpack_from(content, table + n * size) for n in range(count))
    return Elf(machine, min(row[7] for row in rows if row[0] == PT_LOAD))
