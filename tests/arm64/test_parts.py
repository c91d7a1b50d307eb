"""What the arm64 tests are made of, which any machine can try."""

import platform
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.arm64.elf import read_elf
from tests.arm64.emulation import CORES, MAGIC, MASK, cpuinfo, serves

MACHINES = {"x86_64": 62, "aarch64": 183}  # elf(5)
ENTRY = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {}\noffset 0\n"


def test_a_program_says_its_machine() -> None:
    """This Python is for this machine, and a page is no more than its alignment."""
    if platform.machine() not in MACHINES:
        pytest.skip(f"a machine whose number is not listed: {platform.machine()}")
    elf = read_elf(Path(sys.executable).resolve())
    assert elf is not None
    assert elf.machine == MACHINES[platform.machine()]
    assert elf.alignment >= 4096


@given(content=st.binary(max_size=100))
def test_what_is_no_program_says_nothing(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Whatever lies in a folder of packages."""
    path = tmp_path_factory.getbasetemp() / "file.so"
    path.write_bytes(content)
    assert read_elf(path) is None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("qemu-aarch64", ENTRY.format("POF"), True),
        ("qemu-aarch64", ENTRY.format("PO"), False),
        ("qemu-aarch64", ENTRY.format("F").replace("enabled", "disabled"), False),
        ("qemu-riscv64", ENTRY.format("F"), False),
    ],
)
def test_an_entry_serves_if_it_is_on_and_needs_no_copy(
    name: str, text: str, *, expected: bool
) -> None:
    """An emulator that is looked up by its path is not found inside a chroot."""
    assert serves(name, text) is expected


def test_the_kernel_is_told_as_many_bytes_as_masks() -> None:
    """binfmt_misc compares byte by byte, and refuses a mask of another length."""
    lengths = [len(text.encode().decode("unicode_escape")) for text in (MAGIC, MASK)]
    assert lengths == [20, 20]


def test_the_processor_is_one_that_the_runtime_knows() -> None:
    """Four cores of a Pi 4, none with instructions that only newer ones have."""
    lines = cpuinfo().splitlines()
    assert len([line for line in lines if line.startswith("processor")]) == CORES
    features = {line for line in lines if line.startswith("Features")}
    assert len(features) == 1
    assert "asimddp" not in features.pop()
