"""61, 62, 65: what the disk refuses, once or for good, wherever we write to it."""

import pytest

from tests.faults.conftest import Prove, wrong


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize(
    "part",
    [
        pytest.param("enospc", id="61-ENOSPC-once"),
        pytest.param("enospc-sticky", id="61-ENOSPC-sticky"),
        pytest.param("eio", id="62-EIO-once"),
        pytest.param("erofs", id="65-read-only-sticky"),
        pytest.param("emfile", id="65-EMFILE-once"),
    ],
)
def test_61_62_65_a_call_fails_at_each_code_site(prove: Prove, part: str) -> None:
    """The old model answers on, the reason is one of ours, the next look succeeds."""
    verdicts = prove(part)
    assert wrong(verdicts) == []
    assert any(verdict.said for verdict in verdicts)
    assert len(verdicts) > 20


@pytest.mark.usefixtures("mounting")
@pytest.mark.parametrize(
    "part", [pytest.param("full-blocks", id="61"), pytest.param("full-inodes", id="65")]
)
def test_61_65_a_really_full_disk(prove: Prove, part: str) -> None:
    """One block or inode more each time, until an update fits."""
    verdicts = prove(part)
    assert wrong(verdicts) == []
    said = {word for verdict in verdicts for word in verdict.said}
    assert {"disk_full", "failed disk_full", "committed"} <= said
