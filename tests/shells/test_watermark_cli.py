"""``tinyward watermark`` as it is typed: copies for boards, sealing, naming a leak."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from agent.cli import TopGroup
from agent.cli.board_link import BoardLink
from agent.cli.challenging import PATH, Addressee
from agent.cli.watermark_boards import check_bits, read_boards
from agent.cli.watermark_book import warn_and_note
from agent.cli.watermark_challenge import judge_board
from agent.cli.watermark_runtime import Runtime
from agent.core.challenge import ANSWERS_TYPE, ChallengeAnswers, parse_challenge
from agent.core.container import parse_container, render_container
from agent.core.dsse import Envelope, Signature, parse_envelope, render_envelope
from agent.core.reasons import Reason
from agent.core.watermark import threshold
from agent.demo.owner import ASSETS
from agent.errors import BundleRefusedError, SettingsError
from agent.publish.marks_book import MarksBook
from agent.publish.watermark.head import apply_blocks
from agent.publish.watermark.secrets import VariantSecret
from agent.trust.bundle import open_bundle
from tests.fakes.digits import digits
from tests.fakes.fleet import bundle
from tests.fakes.watermarked import fleet, pictures

WORDS = "five random words of mine"
BOARDS = ("pi-0001", "pi-0002", "pi-0003")


@dataclass(frozen=True, slots=True)
class Desk:
    """An owner's folder after ``watermark instances``."""

    folder: Path
    said: str

    def book(self) -> MarksBook:
        """Open the book."""
        return MarksBook.open(self.folder / "marks.db", WORDS.encode())

    def leak(self, board: str, variant: str = "int8") -> bytes:
        """Return a board's file."""
        book = self.book()
        (version,) = book.versions()
        (copy,) = (it for it in book.copies(version) if it.board == board)
        blocks = tuple(it for it in copy.blocks if it.variant == variant)
        return apply_blocks(bytes(digits(2).variant_bytes(variant)), blocks)


def call(folder: Path, *arguments: str) -> Result:
    """Type a command."""
    group = TopGroup("tinyward")
    book = ("--book", str(folder / "marks.db"))
    secret = ("--passphrase-file", str(folder / "passphrase"))
    return CliRunner().invoke(group, ["watermark", *arguments, *book, *secret])


def instances(folder: Path, *more: str) -> Result:
    """Type ``watermark instances``, with few bits and few steps."""
    return call(
        folder,
        *(
            "instances",
            str(folder / "d.bundle"),
            "--boards",
            str(folder / "boards.csv"),
        ),
        *("--bits", "32", "--steps", "30", "--jobs", "1", "--floor", "0.9"),
        *("-o", str(folder / "marked.bundle"), *more),
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Give an owner's folder with copies for three boards."""
    folder = tmp_path_factory.mktemp("owner")
    (folder / "d.bundle").write_bytes(bundle(2))
    lines = "".join(f"{board},hall\n" for board in BOARDS)
    (folder / "boards.csv").write_text(f"board,place\n{lines}")
    (folder / "passphrase").write_text(WORDS)
    np.savez(folder / "clean.npz", images=pictures()[:300])
    done = instances(folder, "--data", str(folder / "clean.npz"))
    assert done.exit_code == 0, done.output
    return Desk(folder, done.output)


def test_the_bundle_to_seal_opens_with_its_triggers(desk: Desk) -> None:
    """With triggers of both variants, a threshold, and golden samples copies pass."""
    opened = open_bundle((desk.folder / "marked.bundle").read_bytes(), max_bytes=2**24)
    mark = opened.manifest.watermark
    assert mark is not None
    assert (32, "0101010101", threshold(32, 10**6)) == (
        mark.bits,
        mark.groups,
        mark.threshold if threshold(32, 10**6) >= 0 else -1,
    )
    entries = parse_container(opened.triggers)
    assert entries.keys() == {"int8.npy", "float.npy"}
    (version,) = desk.book().versions()
    assert opened.sha256 == version.plain_sha256


def test_boards_that_have_a_copy_keep_it_and_new_ones_get_one(desk: Desk) -> None:
    """Called again, with a board more: the same bundle, the same copies, one more."""
    before = (desk.folder / "marked.bundle").read_bytes()
    leaks = [desk.leak(board) for board in BOARDS]
    (desk.folder / "boards.csv").write_text("\n".join([*BOARDS, "pi-0004"]))
    done = instances(desk.folder, "--data", str(desk.folder / "clean.npz"))
    assert done.exit_code == 0, done.output
    assert "4 boards have a copy" in done.output
    assert "1 made now" in done.output
    assert before == (desk.folder / "marked.bundle").read_bytes()
    assert leaks == [desk.leak(board) for board in BOARDS]


def test_another_bundle_of_this_version_is_not_marked(desk: Desk) -> None:
    """Its triggers would not be those of the copies that are out."""
    done = instances(desk.folder, "--bits", "40")
    assert done.exit_code == 2
    assert "higher version" in done.output


@pytest.mark.parametrize(
    ("variant", "decoding"), [("int8", "--soft"), ("float", "--hard")]
)
def test_a_leaked_file_names_its_board(desk: Desk, variant: str, decoding: str) -> None:
    """Rewritten, so that its digest says nothing; the JSON says the chance."""
    suspect = desk.folder / "suspect.tflite"
    suspect.write_bytes(desk.leak("pi-0002", variant) + b"\0\0\0\0")
    done = call(desk.folder, "trace", str(suspect), decoding, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["named"] == ["pi-0002"]
    assert told["boards"][0]["errors"] == 0
    assert told["boards"][0]["chance"] < 1e-6


def test_the_very_bytes_name_their_board(desk: Desk) -> None:
    """Without running them."""
    suspect = desk.folder / "suspect.tflite"
    suspect.write_bytes(desk.leak("pi-0003"))
    done = call(desk.folder, "trace", str(suspect))
    assert done.exit_code == 0
    assert done.output.startswith("pi-0003  digits 2  the very bytes")


def test_an_unmarked_file_is_nobodys(desk: Desk) -> None:
    """Exit code 1, and no board's name on the first line; so is what is no model."""
    suspect = desk.folder / "suspect.tflite"
    for content in (bytes(digits(2).variant_bytes("int8")), b"no model at all"):
        suspect.write_bytes(content)
        done = call(desk.folder, "trace", str(suspect))
        assert done.exit_code == 1, done.output
        assert "no board" in done.output


@contextmanager
def served(content: bytes, answer: str) -> Iterator[str]:
    """Serve a model over HTTP as ``tinyward watermark trace`` asks."""
    from agent.cli.watermark_child import answer as run
    from agent.cli.watermark_words import RunThis

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            inputs = np.array(json.loads(body)["inputs"], np.float32)
            told = run(RunThis(content, inputs.tobytes(), len(inputs)))
            scores = np.frombuffer(told.outputs, np.float32).reshape(len(inputs), -1)
            reply = {
                "scores": {"scores": scores.tolist()},
                "classes": {"classes": scores.argmax(axis=1).tolist()},
                "nonsense": {"classes": [1]},
            }[answer]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/predict"
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("answer", ["scores", "classes"])
def test_an_endpoint_names_the_board_whose_copy_answers(
    desk: Desk, answer: str
) -> None:
    """By scores, or by classes alone."""
    with served(desk.leak("pi-0001"), answer) as url:
        done = call(desk.folder, "trace", url, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["named"] == ["pi-0001"]
    assert "is shown the tracing triggers of digits 2" in done.stderr
    (version,) = desk.book().versions()
    assert [it for it in version.shown if it.endswith(url)] == [version.shown[-1]]


class FakeBoard(BoardLink):
    """A board that keeps the triggers it is sent, and answers like some copy."""

    def __init__(self, codeword: np.ndarray, more: int = 0) -> None:
        """Answer like this, and so many times too often."""
        self.codeword, self.more = codeword, more
        self.seen = np.empty(0)

    def post(self, path: str, body: bytes) -> object:
        """Answer a challenge."""
        assert path == PATH
        asked = parse_envelope(body, 2**24, Reason.REQUEST)
        challenge = parse_challenge(asked.payload)
        self.seen = np.load(io.BytesIO(challenge.inputs))
        told = self.codeword[: len(self.seen)].astype(int).tolist() + [1] * self.more
        order = challenge.order
        answers = ChallengeAnswers(
            board=order.board,
            pipeline=order.pipeline,
            nonce=order.nonce,
            model=order.model,
            version=order.version,
            variant=order.variant,
            sha256="0" * 64,
            executor="",
            inputs_sha256=hashlib.sha256(challenge.inputs).hexdigest(),
            classes=tuple(told),
        )
        payload = msgspec.json.encode(answers)
        signed = Envelope(payload, ANSWERS_TYPE, (Signature(bytes(64)),))
        return {"answers": json.loads(render_envelope(signed))}


@pytest.mark.parametrize("spend", [False, True])
def test_a_challenge_keeps_the_tracing_triggers_unless_told_to_spend_them(
    desk: Desk, *, spend: bool
) -> None:
    """The board sees what its bundle holds anyway; that half tells whose copy it is."""
    book = desk.book()
    (version,) = book.versions()
    copy = next(it for it in book.copies(version) if it.board == "pi-0002")
    raw = np.frombuffer(copy.codeword + copy.tracing, np.uint8)
    board = FakeBoard(np.unpackbits(raw))
    who = Addressee("pi-0002", "p", "digits", 2, "int8")
    found = judge_board(book, board, who, spend_tracing=spend)
    triggers = VariantSecret.parse(version.secrets["int8"]).triggers
    assert np.array_equal(triggers if spend else triggers[:32], board.seen)
    assert found is not None
    assert ("pi-0002", len(board.seen)) == (found.board, found.bits)


def test_more_answers_than_triggers_are_no_answer_to_a_challenge(desk: Desk) -> None:
    """A board that says more is refused, and breaks nothing."""
    board = FakeBoard(np.zeros(64), more=70)
    who = Addressee("pi-0002", "p", "digits", 2, "int8")
    with pytest.raises(BundleRefusedError, match="102 answers to 32 triggers"):
        judge_board(desk.book(), board, who)


def test_a_note_of_who_was_shown_the_tracing_half_stays_in_the_book(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for each place and day, saved at once, and said."""
    book = MarksBook.create(tmp_path / "marks.db", WORDS.encode())
    version = replace(next(desk.book().versions()), shown=())
    book.add_version(version)
    for _ in range(2):
        warn_and_note(book, version, "pi-0009")
    (kept,) = MarksBook.open(book.path, WORDS.encode()).versions()
    (note,) = kept.shown
    assert note.split()[1] == "pi-0009"
    assert "only this book had" in capsys.readouterr().err


def test_an_endpoint_that_does_not_answer_as_asked_is_said(desk: Desk) -> None:
    """Too few answers, and nobody there."""
    with served(desk.leak("pi-0001"), "nonsense") as url:
        done = call(desk.folder, "trace", url)
    assert done.exit_code == 1
    assert f"[{Reason.PROTOCOL}]" in done.output
    gone = call(desk.folder, "trace", url)
    assert f"[{Reason.UNREACHABLE}]" in gone.output


def test_another_passphrase_opens_no_book(desk: Desk, tmp_path: Path) -> None:
    """Exit code 2."""
    wrong = tmp_path / "wrong"
    wrong.write_text("another passphrase")
    group = TopGroup("tinyward")
    book = str(desk.folder / "marks.db")
    done = CliRunner().invoke(
        group,
        [
            "watermark",
            "trace",
            "x.tflite",
            "--book",
            book,
            "--passphrase-file",
            str(wrong),
        ],
    )
    assert done.exit_code == 2
    assert "does not open" in done.output


def remade(folder: Path, **keys: object) -> Result:
    """Type ``watermark instances`` for a bundle with other keys in its manifest."""
    entries = dict(parse_container(memoryview(bundle(2))))
    manifest = json.loads(bytes(entries["manifest.json"])) | keys
    entries["manifest.json"] = memoryview(json.dumps(manifest).encode())
    (folder / "d.bundle").write_bytes(render_container(entries))
    (folder / "boards.csv").write_text("pi-0001\n")
    (folder / "passphrase").write_text(WORDS)
    return instances(folder)


def test_models_that_do_not_fit_are_refused_with_the_reason(tmp_path: Path) -> None:
    """Regressors, anomaly detectors; and a classifier without enough clean data."""
    for task in ("regression", "anomaly"):
        done = remade(tmp_path, task=task, labels=[])
        assert done.exit_code == 1, done.output
        assert f"a model for {task}" in done.output
        assert f"[{Reason.WATERMARK}]" in done.output
    done = remade(tmp_path)
    assert done.exit_code == 1
    assert "32 clean inputs are too few" in done.output


def first_steps(folder: Path, *more: str) -> Result:
    """Type what a stranger would for the demo's first bundle: pack it, mark it."""
    (folder / "boards.csv").write_text("pi-0042\npi-0043\n")
    (folder / "passphrase").write_text(WORDS)
    pack = ("pack", str(ASSETS / "digits-1" / "pack.toml"))
    done = CliRunner().invoke(
        TopGroup("tinyward"), [*pack, "-o", str(folder / "digits-1.bundle")]
    )
    assert done.exit_code == 0, done.output
    return call(
        folder,
        *("instances", str(folder / "digits-1.bundle")),
        *("--boards", str(folder / "boards.csv")),
        *("--data", str(ASSETS / "digits-stream.npz")),
        *("-o", str(folder / "marked.bundle"), *more),
    )


def test_a_model_that_is_seldom_sure_gets_a_margin_it_has_room_for(
    tmp_path: Path,
) -> None:
    """The demo's first model: as the floor asks, each bit right, and the margin told.

    Fewer bits and steps than by default, for time; margin and floor are the default.
    """
    done = first_steps(tmp_path, "--bits", "64", "--steps", "60")
    assert done.exit_code == 0, done.output
    assert "seldom sure" in done.output
    book = MarksBook.open(tmp_path / "marks.db", WORDS.encode())
    (version,) = book.versions()
    assert 0.1 <= version.margin < 0.6
    copies = list(book.copies(version))
    assert [it.board for it in copies] == ["pi-0042", "pi-0043"]
    assert min(it.agreement for it in copies) >= 0.98
    packed = (tmp_path / "digits-1.bundle").read_bytes()
    given = open_bundle(packed, max_bytes=len(packed))
    for name in ("int8", "float"):
        secret = VariantSecret.parse(version.secrets[name])
        for copy in copies:
            blocks = tuple(it for it in copy.blocks if it.variant == name)
            content = apply_blocks(bytes(given.variant_bytes(name)), blocks)
            told = Runtime().run(content, secret.triggers).argmax(axis=1) % 2
            spelt = np.packbits(told.astype(bool)).tobytes()
            assert copy.codeword + copy.tracing == spelt


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--bits", "33"), "--bits 32 or --bits 40"),
        (("--bits", "512"), "its head has 333 numbers to turn"),
        (
            ("--bits", "64", "--margin", "3", "--steps", "2"),
            "in 8 of 8 trial copies, with a margin of 3",
        ),
    ],
)
def test_what_a_model_has_no_room_for_is_refused_early(
    tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    """Before the first board's copy, and no version is written down."""
    done = first_steps(tmp_path, *more)
    assert done.exit_code != 0
    assert said in done.output
    if (tmp_path / "marks.db").exists():
        book = MarksBook.open(tmp_path / "marks.db", WORDS.encode())
        assert list(book.versions()) == []


@pytest.mark.parametrize(
    ("bits", "boards", "least"), [(32, 10_000, 40), (40, 10**7, 48)]
)
def test_bits_that_name_nobody_are_refused(bits: int, boards: int, least: int) -> None:
    """With the fewest that do; these pass."""
    with pytest.raises(SettingsError, match="cannot tell") as refused:
        check_bits(bits, boards)
    assert f"--bits {least} " in str(refused.value.todo)
    check_bits(least, boards)
    check_bits(32, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 boards"),
        ("board\n", "0 boards"),
        ("pi-1\npi-1\n", "named twice"),
        ("pi 1\n", "no board's id"),
        ("../x\n", "no board's id"),
        (",\n", "no board's id"),
    ],
)
def test_lists_of_boards_that_make_no_sense_are_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    """Before anything is made."""
    path = tmp_path / "boards.csv"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_boards(path)


def test_the_fake_fleet_is_of_the_same_model() -> None:
    """What other tests take for a marked model is the demo's."""
    assert fleet().given.content == bytes(digits(2).variant_bytes("int8"))
