"""Origin on the publisher's side: packed, checked when it is added, and shown."""

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.cli import cli
from agent.core.dsse import Envelope, Signature, encode_signed, render_envelope
from agent.core.provenance import (
    PAYLOAD_TYPE,
    check_provenance,
    render_statement,
    state_origin,
    subjects_of,
)
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.publish.description import parse_description
from agent.publish.pack import pack, render_bundle
from agent.publish.repository import init_repository
from agent.trust.bundle import Bundle, open_bundle
from tests.core.test_provenance import SAID
from tests.fakes.bundles import (
    GOLDEN,
    MAX_BYTES,
    VARIANTS,
    ScriptedExaminer,
    good_bundle,
    manifest,
)

MODEL = """
model = "kws"
version = 7
task = "classification"
labels = ["yes", "no", "noise"]
samples = "samples.npz"
golden_samples = 4
"""
VARIANT = """
[[variant]]
name = "int8"
file = "int8.tflite"
tolerance = 0.25
"""
TABLE = """
[provenance.code]
commit = "0123456789012345678901234567890123456789"
repository = "https://git.example/kws"
[provenance.approver]
name = "A. Person"
[[provenance.evaluation]]
metric = "accuracy"
value = 0.93
on = "held-out recordings"
[[provenance.training_data]]
name = "recordings"
{digest}
"""
OWNER = Ed25519PrivateKey.generate()
STATEMENT = render_statement(state_origin(subjects_of(manifest()), SAID))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a directory with everything that a description names."""
    (tmp_path / "int8.tflite").write_bytes(VARIANTS["int8"])
    (tmp_path / "samples.npz").write_bytes(b"samples")
    (tmp_path / "recordings.tar").write_bytes(b"recorded")
    return tmp_path


def packed(project: Path, text: str) -> Bundle:
    """Return the bundle of a description."""
    content = pack(parse_description(text.encode()), project, ScriptedExaminer())
    return open_bundle(content, max_bytes=MAX_BYTES)


def with_table(digest: str) -> str:
    """Return a description with a table of origin."""
    return MODEL + VARIANT + TABLE.format(digest=digest)


def signed(key: Ed25519PrivateKey = OWNER, statement: bytes = STATEMENT) -> bytes:
    """Return a statement in an envelope."""
    signature = key.sign(encode_signed(PAYLOAD_TYPE, statement))
    return render_envelope(Envelope(statement, PAYLOAD_TYPE, (Signature(signature),)))


def bundle(provenance: bytes) -> bytes:
    """Return a bundle that says something of its origin."""
    return render_bundle(manifest(), VARIANTS, GOLDEN, provenance=provenance)


def test_a_table_becomes_a_statement(project: Path) -> None:
    """Digests of data that is here are computed; the subjects are the variants."""
    found = packed(project, with_table('file = "recordings.tar"'))
    statement = check_provenance(found.provenance, found.manifest)
    (data,) = statement.predicate.training_data
    assert data.digest.sha256 == hashlib.sha256(b"recorded").hexdigest()
    assert statement.predicate.code.repository == "https://git.example/kws"
    assert statement.predicate.evaluation[0].value == 0.93
    again = packed(project, with_table(f'sha256 = "{"5" * 64}"'))
    said = check_provenance(again.provenance, again.manifest)
    assert said.predicate.training_data[0].digest.sha256 == "5" * 64
    assert packed(project, MODEL + VARIANT).provenance == b""


@pytest.mark.parametrize(
    ("digest", "word"),
    [
        ("", "one of the two"),
        (f'file = "recordings.tar"\nsha256 = "{"5" * 64}"', "one of the two"),
        ('file = "nothing.tar"', "No such file"),
        ('sha256 = "5"', "training_data"),
        ("extra = 1", "extra"),
    ],
)
def test_a_table_that_makes_no_sense(project: Path, digest: str, word: str) -> None:
    """The message names the key."""
    with pytest.raises(SettingsError, match=word):
        packed(project, with_table(digest))


def test_a_file_is_taken_as_it_is(project: Path) -> None:
    """Signed or not; about other bytes it is refused before anything is written."""
    one = manifest({"int8": VARIANTS["int8"]})
    right = render_statement(state_origin(subjects_of(one), SAID))
    text = 'provenance = "p.json"\n' + MODEL + VARIANT
    for raw in (right, signed(statement=right)):
        (project / "p.json").write_bytes(raw)
        assert packed(project, text).provenance == raw
    (project / "p.json").write_bytes(STATEMENT)  # about one variant too many
    with pytest.raises(SettingsError) as caught:
        packed(project, text)
    assert caught.value.reason == Reason.PROVENANCE
    (project / "p.json").unlink()
    with pytest.raises(SettingsError):
        packed(project, text)


class Publisher:
    """A repository, a bundle and keys as files."""

    def __init__(self, home: Path) -> None:
        self.home = home
        init_repository(home / "repo", now=1_790_000_000.0)
        self.key = home / "owner.pem"
        public = OWNER.public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.key.write_bytes(pem)

    def file(self, content: bytes) -> str:
        """Return a file with some content."""
        path = self.home / "kws.bundle"
        path.write_bytes(content)
        return str(path)

    def add(self, content: bytes, *options: str) -> Result:
        """Run ``tinyward repo add``."""
        words = ["repo", "add", str(self.home / "repo"), self.file(content), *options]
        return CliRunner().invoke(cli, words)

    def show(self, content: bytes, *options: str) -> Result:
        """Run ``tinyward provenance --bundle``."""
        words = ["provenance", "--bundle", self.file(content), *options]
        return CliRunner().invoke(cli, words)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """Give a publisher."""
    return Publisher(tmp_path)


def test_what_is_published_is_checked(publisher: Publisher) -> None:
    """Nothing said is fine, other bytes are not; a key asks for a signature."""
    key = ("--provenance-key", str(publisher.key))
    other = render_statement(
        state_origin(subjects_of(manifest({"int8": VARIANTS["int8"]})), SAID)
    )
    assert publisher.add(bundle(other)).output.count("[provenance]") == 1
    assert publisher.add(bundle(b"{}")).output.count("[provenance]") == 1
    assert publisher.add(good_bundle(), *key).output.count("[provenance]") == 1
    assert publisher.add(bundle(STATEMENT), *key).output.count("[signature]") == 1
    stranger = bundle(signed(Ed25519PrivateKey.generate()))
    assert publisher.add(stranger, *key).output.count("[signature]") == 1
    ok = publisher.add(bundle(signed()), *key)
    assert (ok.exit_code, ok.output[:6]) == (0, "staged")
    publisher.key.write_bytes(b"no key")
    assert publisher.add(bundle(signed()), *key).exit_code == 2


def test_what_a_bundle_says_is_shown(publisher: Publisher) -> None:
    """In words; whether it is signed, and by whom, is said and never guessed."""
    shown = publisher.show(bundle(signed()))
    assert shown.exit_code == 0
    for word in ("recordings.tar", "accuracy 0.93 on held-out", "A. Person, 2026"):
        assert word in shown.output
    assert "NOT verified" in shown.output
    verified = publisher.show(bundle(signed()), "--verify", str(publisher.key))
    assert (verified.exit_code, "yes, verified" in verified.output) == (0, True)
    bare = publisher.show(bundle(STATEMENT), "--verify", str(publisher.key))
    assert (bare.exit_code, "[signature]" in bare.output) == (1, True)
    assert "[provenance]" in publisher.show(good_bundle()).output
    assert '"predicateType"' in publisher.show(bundle(STATEMENT), "--json").output
