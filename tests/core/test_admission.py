"""Admission: the order of its questions, and the law of anti-rollback."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.admission import (
    RESERVE_BYTES,
    Standing,
    admits_version,
    check_admission,
    check_contents,
)
from agent.core.executors import Executor
from agent.core.installed import Board, Installed, Slots
from agent.core.reasons import Reason
from agent.core.sealing import Sealing
from agent.core.targets import (
    BundleFields,
    SignedTarget,
    bundle_path,
    parse_target,
    sealed_of,
)
from agent.errors import AgentError, BundleRefusedError, DeviceError
from tests.fakes.bundles import VARIANTS, manifest

SHA = "a" * 64
OTHER = "b" * 64
BOARD = Board(
    id="board-1",
    hardware=("raspberrypi,4-model-b", "aarch64"),
    agent="1.2.0",
    free_bytes=10_000_000,
    ram_bytes=100_000_000,
)
SMALLEST_BYTES = min(len(content) for content in VARIANTS.values())


def target(version: int = 3, *, sha256: str = SHA, **fields: object) -> SignedTarget:
    """Return a signed target of kws, with some fields signed differently."""
    said = BundleFields(
        model="kws", version=version, plain_sha256=sha256, plain_bytes=1000
    )
    return SignedTarget(
        bundle_path("kws", version), 1000, sha256, replace(said, **fields)
    )


def installed(version: int, sha256: str = SHA) -> Installed:
    """Return a committed model."""
    executor = Executor("litert", "xnnpack")
    return Installed("kws", version, sha256, 1000, "int8", executor)


def standing(**changes: object) -> Standing:
    """Return a board that admits ``target()``, but for some changes."""
    facts: dict[str, object] = {
        "board": BOARD,
        "model": "kws",
        "slots": Slots(),
        "max_bundle_bytes": 1_000_000,
    }
    return Standing(**(facts | changes))  # type: ignore[arg-type]  # checked at run time


def reason(wanted: SignedTarget, here: Standing) -> str:
    """Return why a target is not admitted, or an empty string."""
    try:
        check_admission(wanted, here)
    except AgentError as err:
        return err.reason
    return ""


def test_a_fitting_target_is_admitted() -> None:
    """This model, this board, this version, enough room: admission is silent."""
    wanted = target(hardware=("aarch64", "x86_64"), min_agent="1.2")
    assert reason(wanted, standing(floor=3)) == ""


@pytest.mark.parametrize(
    ("wanted", "here", "expected"),
    [
        (target(), standing(max_bundle_bytes=999), Reason.TOO_LARGE),
        (target(), standing(model="vww"), Reason.MISMATCH),
        (target(plain_sha256=OTHER), standing(), Reason.MISMATCH),
        (target(hardware=("jetson",)), standing(), Reason.HARDWARE),
        (target(min_agent="1.2.1"), standing(), Reason.MIN_AGENT),
        (target(min_agent="2"), standing(), Reason.MIN_AGENT),
        (target(), standing(revoked={SHA}), Reason.REVOKED),
        (target(2), standing(floor=3), Reason.VERSION_FLOOR),
        (target(), standing(set_aside="crash_loop"), Reason.CRASH_LOOP),
        (target(), standing(set_aside="of_a_newer_agent"), "of_a_newer_agent"),
    ],
)
def test_refusals(wanted: SignedTarget, here: Standing, expected: str) -> None:
    """Each thing that does not fit has its own reason."""
    assert expected == reason(wanted, here)
    with pytest.raises(BundleRefusedError, match=r"models/kws/\d\.bundle"):
        check_admission(wanted, here)


def test_a_full_disk_is_the_operators_business() -> None:
    """Room for the bundle, a tenth of it and a reserve, unless the bytes are here."""
    needed = 1100 + RESERVE_BYTES
    enough = replace(BOARD, free_bytes=needed)
    short = replace(BOARD, free_bytes=needed - 1)
    assert reason(target(), standing(board=enough)) == ""
    assert reason(target(), standing(board=short)) == Reason.DISK_FULL
    assert reason(target(), standing(board=short, stored=True)) == ""
    with pytest.raises(DeviceError, match=f"{needed} bytes"):
        check_admission(target(), standing(board=short))


def test_the_order_of_questions() -> None:
    """Of several things wrong, the one named first in the trust chain is told."""
    wrong: dict[str, object] = {
        "max_bundle_bytes": 1,
        "model": "vww",
        "board": replace(BOARD, hardware=(), agent="0.1", free_bytes=0),
        "revoked": (SHA,),
        "floor": 9,
        "set_aside": "crash",
    }
    wanted = target(hardware=("jetson",), min_agent="9")
    told = [reason(wanted, standing(**wrong))]
    for mended in ("max_bundle_bytes", "model"):
        del wrong[mended]
        told.append(reason(wanted, standing(**wrong)))
    told.append(reason(target(min_agent="9"), standing(**wrong)))
    for mended in ("revoked", "floor"):
        told.append(reason(target(), standing(**wrong)))
        del wrong[mended]
    told.append(reason(target(), standing(**wrong)))
    del wrong["set_aside"]
    told.append(reason(target(), standing(**wrong)))
    assert told == [
        Reason.TOO_LARGE,
        Reason.MISMATCH,
        Reason.HARDWARE,
        Reason.MIN_AGENT,
        Reason.REVOKED,
        Reason.VERSION_FLOOR,
        Reason.CRASH,
        Reason.DISK_FULL,
    ]


@pytest.mark.parametrize(
    ("agent", "admitted"),
    [("1.2.1", True), ("1.2.1.dev3", True), ("1.3.0rc1", True), ("1.2", False)],
)
def test_agent_versions_compare_as_numbers(agent: str, *, admitted: bool) -> None:
    """Missing parts are zero and what follows the numbers does not count."""
    here = standing(board=replace(BOARD, agent=agent))
    assert admitted is not bool(reason(target(min_agent="1.2.1"), here))


def test_previous_is_the_way_back() -> None:
    """Below the floor only the previous model's own bytes are admitted."""
    slots = Slots(installed(5, OTHER), installed(3))
    assert reason(target(), standing(slots=slots, floor=5)) == ""
    swapped = target(sha256="c" * 64, plain_sha256="c" * 64)
    assert reason(swapped, standing(slots=slots, floor=5)) == Reason.VERSION_FLOOR


def test_36_a_version_is_never_used_twice() -> None:
    """The active version with other bytes is refused, and the message says why."""
    here = standing(slots=Slots(installed(3, OTHER)), floor=3)
    with pytest.raises(BundleRefusedError, match="under the same version"):
        check_admission(target(), here)


def test_what_was_set_aside_says_how_to_try_it_again() -> None:
    """The way out is a command, with as much of the digest as it needs."""
    wanted = target()
    with pytest.raises(BundleRefusedError) as raised:
        check_admission(wanted, standing(set_aside="crash"))
    command = f"`tinyward update forgive {wanted.sha256[:12]}`"
    assert f"was set aside on this board; {command}" in str(raised.value)


@given(
    version=st.integers(1, 20),
    floor=st.integers(0, 20),
    previous=st.none() | st.integers(1, 20),
)
def test_36_anti_rollback(version: int, floor: int, previous: int | None) -> None:
    """Admitted is a version >= the floor, or the durable previous; nothing else."""
    kept = None if previous is None else installed(previous)
    slots = Slots(None, kept)
    expected = version >= floor or version == previous
    assert expected == admits_version(target(version), floor, slots)


def test_contents_have_to_be_what_was_signed() -> None:
    """A manifest that names another model or version is refused."""
    check_contents(target(7), manifest(), BOARD)
    with pytest.raises(BundleRefusedError, match="calls itself kws 7") as caught:
        check_contents(target(8), manifest(), BOARD)
    assert caught.value.reason == Reason.MISMATCH


def test_the_smallest_variant_has_to_fit() -> None:
    """Memory refuses a bundle only where none of its variants fits."""
    fits = replace(BOARD, ram_bytes=SMALLEST_BYTES)
    check_contents(target(7), manifest(), fits)
    with pytest.raises(BundleRefusedError, match="of memory") as caught:
        check_contents(
            target(7), manifest(), replace(BOARD, ram_bytes=SMALLEST_BYTES - 1)
        )
    assert caught.value.reason == Reason.MEMORY


@pytest.mark.parametrize("version", [None, -1, 0, 2**63, 1.5, "7"])
def test_36_versions_that_are_none(version: object) -> None:
    """Absent, negative, zero, beyond 64 bits, no integer: no target at all."""
    said = {"model": "kws", "plain_sha256": SHA, "plain_bytes": 1000}
    custom = said if version is None else said | {"version": version}
    with pytest.raises(BundleRefusedError) as caught:
        parse_target("models/kws/7.bundle", 1000, {"sha256": SHA}, custom)
    assert caught.value.reason == Reason.METADATA


def sealed_target(plain_bytes: int = 1000) -> SignedTarget:
    """Return a sealed target, whose plain bytes are others."""
    sealing = Sealing("chacha20-poly1305")
    return target(sealed=sealing, plain_sha256=OTHER, plain_bytes=plain_bytes)


def test_what_is_sealed_says_so_and_has_to_fit_memory() -> None:
    """Its plain bytes are others, lie in memory, and are limited as any bundle."""
    assert reason(sealed_target(), standing()) == ""
    same = target(sealed=Sealing("chacha20-poly1305"))
    assert reason(same, standing()) == Reason.MISMATCH
    assert reason(target(plain_sha256=OTHER), standing()) == Reason.MISMATCH
    assert reason(sealed_target(1_000_001), standing()) == Reason.TOO_LARGE
    board = replace(BOARD, ram_bytes=999)
    assert reason(sealed_target(), standing(board=board)) == Reason.MEMORY
    assert reason(target(), standing(board=board)) == ""
    assert sealed_of(target()) is None
    known = sealed_of(sealed_target())
    assert known is not None
    assert (known.model, known.version, known.plain_sha256) == ("kws", 3, OTHER)
