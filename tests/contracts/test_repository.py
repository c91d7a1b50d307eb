"""One contract, two repositories: TUF on a disk, and the scripted fake."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from agent.core.reasons import Reason
from agent.core.sealing import HYBRID_ENVELOPE_BYTES, MAX_ENVELOPE_BYTES
from agent.core.targets import Revocations, Wanted, bundle_path
from agent.errors import BundleRefusedError, DeviceError
from agent.trust.client import TrustedRepository
from agent.update.needs import Repository
from tests.fakes.bundle_factory import NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.kept_bytes import KeptBytes
from tests.fakes.memory_notes import MemoryNotes
from tests.fakes.scripted_repository import ScriptedRepository
from tests.fakes.sealed_bytes import seal_bytes

BODY = good_bundle(2)
LIMIT = 10**6


class Offer(Protocol):
    """A repository that holds kws 2 for the group ``all``, and how to spoil it."""

    repository: Repository

    def spoil(self, content: bytes | None) -> None:
        """Deliver something else than what was signed; None: nothing."""

    def envelope(self, content: bytes) -> None:
        """Let there be an envelope of kws 2 for pi-7."""


class RealOffer:
    """A published TUF repository and its client."""

    def __init__(self, path: Path) -> None:
        self._made: SpoiledRepository = make_repository(
            path / "repository", {("kws", 2): BODY}, {"all": {"door": ("kws", 2)}}
        )
        self.repository: Repository = TrustedRepository(
            metadata_dir=path / "metadata",
            repository=str(self._made.path),
            root=self._made.root,
            notes=MemoryNotes(),
            build_time=0.0,
        )

    def spoil(self, content: bytes | None) -> None:
        """Change the stored file."""
        file = self._made.bundle_file("kws", 2)
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)

    def envelope(self, content: bytes) -> None:
        """Write it where it belongs."""
        file = self._made.path / "envelopes/kws/2/pi-7"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class ScriptedOffer:
    """The fake."""

    def __init__(self, _path: Path) -> None:
        self._made = ScriptedRepository({("kws", 2): BODY})
        self._made.assign(door=("kws", 2))
        self.repository: Repository = self._made

    def spoil(self, content: bytes | None) -> None:
        """Script another delivery."""
        if content is None:
            self._made.gone.add(("kws", 2))
        else:
            self._made.spoiled["kws", 2] = content

    def envelope(self, content: bytes) -> None:
        """Script it."""
        self._made.envelopes["kws", 2, "pi-7"] = content


@pytest.fixture(params=[RealOffer, ScriptedOffer])
def offer(request: pytest.FixtureRequest, tmp_path: Path) -> Offer:
    """Give each of the two repositories."""
    make: Callable[[Path], Offer] = request.param
    return make(tmp_path)


def fetched(repository: Repository, limit: int = LIMIT) -> bytes:
    """Fetch kws 2."""
    content = bytearray()
    repository.fetch(repository.find("kws", 2), content.extend, limit)
    return bytes(content)


def reason(call: Callable[[], object]) -> str:
    """Return why a call is refused."""
    with pytest.raises(BundleRefusedError) as caught:
        call()
    return caught.value.reason


def test_nothing_is_said_before_it_was_verified(offer: Offer) -> None:
    """Without a refresh there is neither a desired state nor a target."""
    repository = offer.repository
    assert reason(lambda: repository.desired(["all"])) == Reason.UNREACHABLE
    assert reason(lambda: repository.find("kws", 2)) == Reason.UNREACHABLE


def test_what_was_published_comes_back(offer: Offer) -> None:
    """Desired state, signed target and content are those that were published."""
    repository = offer.repository
    repository.refresh(NOW)
    ((path, file),) = repository.desired(["lab", "all"])
    assert (path, file.generation) == ("fleet/groups/all", 1)
    assert file.pipelines == {"door": Wanted("kws", 2)}
    target = repository.find("kws", 2)
    assert (target.path, target.length) == (bundle_path("kws", 2), len(BODY))
    assert target.fields.plain_sha256 == target.sha256
    assert fetched(repository) == BODY


def test_a_refresh_says_whether_anything_changed(offer: Offer) -> None:
    """The first is news; what is verified is in use with and without any."""
    repository = offer.repository
    assert repository.refresh(NOW) is True
    repository.refresh(NOW + 1)
    assert fetched(repository) == BODY


def test_a_board_without_a_file_has_its_groups(offer: Offer) -> None:
    """An id that nothing was published for changes nothing."""
    offer.repository.refresh(NOW)
    found = offer.repository.desired(["all"], "board-1")
    assert [path for path, _ in found] == ["fleet/groups/all"]


def test_nothing_is_revoked_until_somebody_does(offer: Offer) -> None:
    """Revocations are empty to begin with, and unknown before a refresh."""
    repository = offer.repository
    assert reason(repository.revoked) == Reason.UNREACHABLE
    repository.refresh(NOW)
    assert repository.revoked() == Revocations()


def test_facts_are_there_before_a_refresh(offer: Offer) -> None:
    """Metrics ask at any time: nothing expires, was issued, or has to be waited for."""
    repository = offer.repository
    facts = (repository.expiries(), repository.issued, repository.retry_after)
    assert facts == ({}, 0.0, 0.0)


def test_what_was_kept_is_not_fetched_again(offer: Offer) -> None:
    """A download that broke off goes on where it stopped, in a later call."""
    repository = offer.repository
    repository.refresh(NOW)
    target = repository.find("kws", 2)
    whole = KeptBytes()
    assert repository.fetch(target, whole.write, LIMIT, whole) == 0
    half = KeptBytes(BODY[: len(BODY) // 2], whole.tag)
    assert repository.fetch(target, half.write, LIMIT, half) == len(BODY) // 2
    assert bytes(half.content) == BODY
    other = KeptBytes(BODY[: len(BODY) // 2], "another")
    assert repository.fetch(target, other.write, LIMIT, other) == 0
    assert (bytes(other.content), other.restarts) == (BODY, 1)


def test_what_is_not_there_is_missing(offer: Offer) -> None:
    """A version that was not signed, or whose file is gone: missing_target."""
    repository = offer.repository
    repository.refresh(NOW)
    assert reason(lambda: repository.find("kws", 3)) == Reason.MISSING_TARGET
    offer.spoil(None)
    assert reason(lambda: fetched(repository)) == Reason.MISSING_TARGET


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (BODY[:-1], Reason.LENGTH),
        (BODY + b"x", Reason.LENGTH),
        (BODY[:-1] + b"x", Reason.DIGEST),
    ],
)
def test_other_content_is_refused(
    offer: Offer, content: bytes, expected: Reason
) -> None:
    """Shorter, longer and changed content have their own reasons."""
    offer.repository.refresh(NOW)
    offer.spoil(content)
    assert reason(lambda: fetched(offer.repository)) == expected


def test_limits_come_before_bytes(offer: Offer) -> None:
    """More than the board allows is not even begun."""
    offer.repository.refresh(NOW)
    limit = len(BODY) - 1
    assert reason(lambda: fetched(offer.repository, limit)) == Reason.TOO_LARGE


def test_errors_of_the_writer_pass(offer: Offer) -> None:
    """A disk that is full while it is written to is not the repository's fault."""

    def full(_content: memoryview) -> None:
        raise DeviceError("full", reason=Reason.DISK_FULL)

    repository = offer.repository
    repository.refresh(NOW)
    target = repository.find("kws", 2)
    with pytest.raises(DeviceError) as caught:
        repository.fetch(target, full, LIMIT)
    assert caught.value.reason == Reason.DISK_FULL


def test_deltas_are_asked_of_what_was_verified(offer: Offer) -> None:
    """None before that; after it those that lead to a bundle: here there are none."""
    repository = offer.repository
    repository.refresh(NOW)
    assert list(repository.deltas(repository.find("kws", 2))) == []


def test_an_envelope_is_one_boards(offer: Offer) -> None:
    """It is found for its board and version; elsewhere there is none, which is fine."""
    repository = offer.repository
    assert repository.envelope("kws", 2, "pi-7") is None
    offer.envelope(b"an envelope")
    assert repository.envelope("kws", 2, "pi-7") == b"an envelope"
    for model, version, board in (("kws", 1, "pi-7"), ("kws", 2, "pi-8"), ("a", 2, "")):
        assert repository.envelope(model, version, board) is None


def test_an_envelope_has_a_limit_and_a_harmless_name(tmp_path: Path) -> None:
    """A file without an end is refused; no board's id leads out of the repository."""
    offer = RealOffer(tmp_path)
    offer.envelope(bytes(MAX_ENVELOPE_BYTES))
    found = offer.repository.envelope("kws", 2, "pi-7")
    assert found is not None
    assert len(found) == MAX_ENVELOPE_BYTES
    offer.envelope(bytes(MAX_ENVELOPE_BYTES + 1))
    call = partial(offer.repository.envelope, "kws", 2)
    assert reason(lambda: call("pi-7")) == Reason.ENVELOPE
    for board in ("../../../metadata/timestamp.json", "a/b", ".", "", "\0", "x" * 65):
        assert call(board) is None


def test_an_envelope_is_as_long_as_its_sealing_says(tmp_path: Path) -> None:
    """Without marks it holds a key: 8 MB from anybody are not fetched for that."""
    made = make_repository(tmp_path / "repository", {("kws", 2): BODY})
    sealed = seal_bytes()
    made.repository.add_sealed(sealed.content, sealed.sealed)
    made.repository.publish(NOW)
    client = TrustedRepository(
        metadata_dir=tmp_path / "metadata",
        repository=str(made.path),
        root=made.root,
        notes=MemoryNotes(),
        build_time=0.0,
    )
    client.refresh(NOW)
    version = sealed.sealed.version
    file = made.path / f"envelopes/kws/{version}/pi-7"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(HYBRID_ENVELOPE_BYTES))
    assert client.envelope("kws", version, "pi-7") == bytes(HYBRID_ENVELOPE_BYTES)
    file.write_bytes(bytes(HYBRID_ENVELOPE_BYTES + 1))
    long = partial(client.envelope, "kws", version, "pi-7")
    assert reason(long) == Reason.ENVELOPE


def test_a_repository_that_is_away_has_no_say(tmp_path: Path) -> None:
    """Out of reach is another thing than without an envelope."""
    offer = RealOffer(tmp_path)
    shutil.move(tmp_path / "repository", tmp_path / "elsewhere")
    call = partial(offer.repository.envelope, "kws", 2, "pi-7")
    assert reason(call) == Reason.UNREACHABLE
