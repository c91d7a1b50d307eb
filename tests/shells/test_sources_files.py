"""The files source: every kind of file, bad ones included, at once and at a rate."""

import subprocess
import sys
import time
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy
from PIL import Image

from agent.core.flow import FilesSource
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.worker.samples import Array, InputError, Sample
from agent.worker.sources import RecordedSource, build_source
from agent.worker.sources.schedule import MAX_BACKLOG_NS, Schedule


def source(
    path: Path, *, array: str = "", loop: bool = False, memory: bool = False
) -> RecordedSource:
    """Build a files source without a rate."""
    settings = FilesSource(path=str(path), array=array, loop=loop, memory=memory)
    built = build_source(settings, None)
    assert isinstance(built, RecordedSource)
    return built


def drain(built: RecordedSource) -> list[Sample | str]:
    """Take until the end: samples, and the messages of bad ones."""
    taken: list[Sample | str] = []
    while not built.ended:
        try:
            sample = built.take(0.0)
        except InputError as err:
            taken.append(str(err))
        else:
            taken += [] if sample is None else [sample]
    assert (built.dropped, built.partial, built.ready_ns) == (0, 0, 0)
    built.close()
    return taken


def rows(built: RecordedSource) -> list[object]:
    """Return what is taken as lists."""
    return [x.tolist() if isinstance(x, np.ndarray) else x for x in drain(built)]


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", ">f4", "<i2", "bool", "float64"])
def test_rows_of_npy(tmp_path: Path, dtype: str, *, memory: bool) -> None:
    """Rows along the first axis are samples, in this machine's byte order."""
    stored = np.arange(12).reshape(3, 2, 2).astype(dtype)
    np.save(tmp_path / "a.npy", stored)
    taken = drain(source(tmp_path / "a.npy", memory=memory))
    assert [x.tolist() for x in taken if isinstance(x, np.ndarray)] == stored.tolist()
    first = taken[0]
    assert isinstance(first, np.ndarray)
    assert first.dtype is np.dtype(np.dtype(dtype).type)


def test_columns_first(tmp_path: Path) -> None:
    """Fortran order holds the same rows."""
    stored = np.asfortranarray(np.arange(12).reshape(4, 3))
    np.save(tmp_path / "a.npy", stored)
    assert rows(source(tmp_path / "a.npy")) == stored.tolist()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_of_npz(tmp_path: Path, save: Callable[..., None]) -> None:
    """``array`` names it, empty means the first; another name is a bad sample."""
    path = tmp_path / "a.npz"
    save(path, images=np.zeros((2, 1)), labels=np.ones((1, 1)))
    assert rows(source(path)) == [[0.0], [0.0]]
    assert rows(source(path, array="labels")) == [[1.0]]
    (message,) = drain(source(path, array="sounds"))
    assert message == "a.npz: no array 'sounds'; there is images, labels"


def test_all_arrays_of_npz_feed_a_model_with_several_inputs(tmp_path: Path) -> None:
    """``array = "*"``: a sample is one row of every array, by the array's name."""
    np.savez(tmp_path / "a.npz", x=np.arange(4).reshape(2, 2), y=np.array([5.0, 6.0]))
    samples = drain(source(tmp_path / "a.npz", array="*"))
    assert [isinstance(sample, dict) for sample in samples] == [True, True]
    found = [
        {name: row.tolist() for name, row in sample.items()}
        for sample in samples
        if isinstance(sample, dict)
    ]
    assert found == [{"x": [0, 1], "y": 5.0}, {"x": [2, 3], "y": 6.0}]


def test_arrays_of_different_lengths_feed_nothing(tmp_path: Path) -> None:
    """Rows that do not belong together are not paired: one bad sample, and why."""
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2)), y=np.zeros(3))
    (message,) = drain(source(tmp_path / "a.npz", array="*"))
    assert message == "a.npz: the arrays differ in length: x 2, y 3 rows"


def test_pickles_are_never_read(tmp_path: Path) -> None:
    """An array of objects is refused by its header."""
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    (message,) = drain(source(tmp_path / "a.npy"))
    assert message == "a.npy: an array of object is no sample"


def lying_header(path: Path, shape: tuple[int, ...], dtype: str = "<f8") -> None:
    """Write an .npy that claims a shape and holds 16 bytes."""
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        file.write(bytes(16))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10**6, 10**6), "the header claims"),
        ((10**18, 10**18), "the header claims"),
        ((1, 10**9), "the header claims"),
        ((), "without axes"),
        ((10**18, 0), "without a value"),
        ((-1, 4), "impossible shape"),
    ],
)
def test_headers_that_lie(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    """Claims are compared with the file before memory is taken."""
    lying_header(tmp_path / "a.npy", shape)
    (answer,) = drain(source(tmp_path / "a.npy"))
    assert isinstance(answer, str)
    assert message in answer


def test_a_damaged_header_is_a_bad_sample(tmp_path: Path) -> None:
    """Python's parser, which numpy lets read it, fails in ways of its own."""
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"(3, 2), }", b"(3, 2    "))
    (message,) = drain(source(tmp_path / "a.npy"))
    assert isinstance(message, str)
    assert message.startswith("a.npy: no .npy header: TokenError")


def test_a_file_cut_short(tmp_path: Path) -> None:
    """Whole rows are samples, the missing one is a bad sample, then it ends."""
    lying_header(tmp_path / "a.npy", (3, 1))
    taken = rows(source(tmp_path / "a.npy"))
    assert taken == [[0.0], [0.0], "a.npy: the file ends in row 2 of 3"]


@pytest.mark.parametrize("suffix", ["npy", "npz", "wav", "csv", "jsonl", "png"])
@given(content=st.binary(max_size=300))
def test_any_bytes_are_bad_samples(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes
) -> None:
    """Law: a file of noise yields errors or samples, and nothing else."""
    path = tmp_path_factory.mktemp("noise") / f"a.{suffix}"
    path.write_bytes(content)
    for item in drain(source(path)):
        assert isinstance(item, str | np.ndarray | dict)


@given(place=st.integers(0, 700), value=st.integers(0, 255))
def test_a_damaged_npz(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    """Law: one changed byte is a bad sample or another value, never a crash."""
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    np.savez_compressed(path, x=np.arange(60, dtype=np.uint8).reshape(6, 10))
    content = bytearray(path.read_bytes())
    content[place % len(content)] = value
    path.write_bytes(content)
    drain(source(path))


def test_an_encrypted_npz(tmp_path: Path) -> None:
    """What zipfile cannot open is one bad sample that says so."""
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((1, 1)))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert zipfile.is_zipfile(path)
    (message,) = drain(source(path))
    assert isinstance(message, str)
    assert "not a readable .npz" in message


def write_wav(path: Path, pcm: Array, width: int = 2) -> None:
    """Write (samples, channels) of integers as WAV."""
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(pcm.shape[1])
        sound.setsampwidth(width)
        sound.setframerate(16_000)
        sound.writeframes(pcm.tobytes())


def test_wav(tmp_path: Path) -> None:
    """16 bit PCM becomes -1..1; stereo is averaged; one file is one sample."""
    write_wav(tmp_path / "a.wav", np.array([[-32_768], [16_384]], "<i2"))
    write_wav(tmp_path / "b.wav", np.array([[16_384, 0], [-8192, -8192]], "<i2"))
    taken = drain(source(tmp_path))
    assert [x.dtype for x in taken if isinstance(x, np.ndarray)] == [np.float32] * 2
    assert rows(source(tmp_path)) == [[-1.0, 0.5], [0.25, -0.25]]


def test_wav_of_another_kind(tmp_path: Path) -> None:
    """8 bit and three channels are refused with a way out."""
    write_wav(tmp_path / "a.wav", np.zeros((4, 1), np.uint8), width=1)
    write_wav(tmp_path / "b.wav", np.zeros((4, 3), "<i2"))
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    messages = drain(source(tmp_path))
    assert [str(m).split(";")[0] for m in messages] == [
        "a.wav: 8 bit sound of 1 channels",
        "b.wav: 16 bit sound of 3 channels",
        "c.wav: not a readable WAV file: it ends early",
    ]


@pytest.mark.parametrize("header", ["", "time,volt\r\n"])
def test_csv(tmp_path: Path, header: str) -> None:
    """Rows are float32, with or without a header; a bad row is one bad sample."""
    path = tmp_path / "a.csv"
    path.write_text(f"\ufeff{header}1,2.5\r\n\r\n3,x\r\n4\r\n5,nan\n6,1e99", "utf-8")
    one, letter, short, nan, huge = drain(source(path))
    assert isinstance(one, np.ndarray)
    assert one.dtype == np.float32
    assert one.tolist() == [1.0, 2.5]
    assert "not 2 numbers: '3,x'" in str(letter)
    assert "not 2 numbers: '4'" in str(short)
    assert isinstance(nan, np.ndarray)
    assert np.isnan(nan[1])
    assert isinstance(huge, np.ndarray)
    assert np.isinf(huge[1])


def test_jsonl(tmp_path: Path) -> None:
    """A line is an array, or an object of arrays by input name."""
    path = tmp_path / "a.jsonl"
    lines = ["[1, 2]", "", '{"a": [1], "b": [[2.5]]}', "[1, [2]]", '["1"]', "7", "[1"]
    path.write_text("\n".join(lines))
    first, second, *bad = drain(source(path))
    assert isinstance(first, np.ndarray)
    assert first.dtype == np.float32
    assert first.tolist() == [1.0, 2.0]
    assert isinstance(second, dict)
    named = {name: array.tolist() for name, array in second.items()}
    assert named == {"a": [1.0], "b": [[2.5]]}
    assert [str(message).split(":")[1] for message in bad] == [
        " line 4",
        " line 5",
        " line 6",
        " line 7",
    ]


def test_pictures(tmp_path: Path) -> None:
    """Colour is (H, W, 3), gray (H, W, 1); palettes and transparency are resolved."""
    red = Image.new("RGB", (3, 2), (255, 0, 0))
    red.save(tmp_path / "a.png")
    red.convert("L").save(tmp_path / "b.bmp")
    red.convert("P").save(tmp_path / "c.gif")
    red.convert("RGBA").save(tmp_path / "d.PNG")
    taken = [x for x in drain(source(tmp_path)) if isinstance(x, np.ndarray)]
    assert [x.shape for x in taken] == [(2, 3, 3), (2, 3, 1), (2, 3, 3), (2, 3, 3)]
    assert [x[0, 0].tolist() for x in taken] == [
        [255, 0, 0],
        [76],
        [255, 0, 0],
        [255, 0, 0],
    ]


def test_what_is_no_picture(tmp_path: Path) -> None:
    """A wrong or damaged image is one bad sample that names the file."""
    (tmp_path / "a.png").write_bytes(b"GIF, or so it says")
    Image.new("L", (64, 64)).save(tmp_path / "b.jpg")
    whole = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[:-100])
    Image.new("L", (1, 1), 9).save(tmp_path / "c.png")
    wrong, damaged, good = drain(source(tmp_path))
    assert str(wrong).startswith("a.png: the file: no picture that Pillow can read")
    assert str(damaged).startswith("b.jpg: the file: no picture that Pillow can read")
    assert isinstance(good, np.ndarray)
    assert good.tolist() == [[[9]]]


def test_pillow_is_asked_for_by_name(tmp_path: Path) -> None:
    """Without Pillow a picture is an error at the start that says what to install."""
    (tmp_path / "a.png").write_bytes(b"")
    program = (
        "import sys; sys.modules['PIL'] = None\n"
        "from agent.core.flow import FilesSource\n"
        "from agent.errors import DeviceError\n"
        "from agent.worker.sources import build_source\n"
        "try: build_source(FilesSource(path=sys.argv[1]), None)\n"
        "except DeviceError as err: print(err.reason, err)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("input images need Pillow")
    assert "pip install 'tinyward[image]'" in done.stdout


def test_pillow_is_only_imported_by_pictures(tmp_path: Path) -> None:
    """A source of arrays does not load Pillow."""
    np.save(tmp_path / "a.npy", np.zeros((1, 1)))
    program = (
        "import sys\n"
        "from agent.core.flow import FilesSource\n"
        "from agent.worker.sources import build_source\n"
        "build_source(FilesSource(path=sys.argv[1]), None).take(0)\n"
        "print('PIL' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n"


def test_a_directory_in_the_order_of_names(tmp_path: Path) -> None:
    """Files of any known kind; others and hidden ones are left alone."""
    np.save(tmp_path / "b.npy", np.full((1, 1), 2.0))
    (tmp_path / "a.csv").write_text("1\n")
    (tmp_path / "c.jsonl").write_text("[3]\n")
    (tmp_path / ".d.csv").write_text("4\n")
    (tmp_path / "README.md").write_text("5\n")
    assert rows(source(tmp_path)) == [[1.0], [2.0], [3.0]]


def test_nothing_to_read(tmp_path: Path) -> None:
    """A missing path, an empty directory and an unknown kind are the operator's."""
    (tmp_path / "a.txt").write_text("1")
    for path, reason in (
        (tmp_path / "none", Reason.SOURCE_MISSING),
        (tmp_path, Reason.SOURCE_MISSING),
        (tmp_path / "a.txt", Reason.SOURCE_FAILED),
    ):
        with pytest.raises(DeviceError, match=str(path)) as caught:
            source(path)
        assert caught.value.reason == reason


@pytest.mark.parametrize("memory", [False, True])
def test_looping(tmp_path: Path, *, memory: bool) -> None:
    """With ``loop`` the first sample follows the last; errors come again too."""
    (tmp_path / "a.csv").write_text("1\nx\n2\n")
    built = source(tmp_path, loop=True, memory=memory)
    seen: list[object] = []
    for _ in range(7):
        try:
            sample = built.take(0.0)
            assert isinstance(sample, np.ndarray)
            seen.append(sample.item())
        except InputError:
            seen.append("bad")
    assert seen == [1.0, "bad", 2.0, 1.0, "bad", 2.0, 1.0]
    assert not built.ended
    built.close()
    assert (built.take(0.0), built.ended) == (None, True)


@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any),
    start=st.integers(0, 30),
    loop=st.booleans(),
    memory=st.booleans(),
)
def test_going_on_where_another_worker_ended(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    *,
    start: int,
    loop: bool,
    memory: bool,
) -> None:
    """Law: from ``start`` on, samples are those that a whole run would give."""
    folder = tmp_path_factory.mktemp("rounds")
    numbers = iter(range(100))
    for name, length in enumerate(lengths):
        lines = [f"[{next(numbers)}]\n" for _ in range(length)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    settings = FilesSource(path=str(folder), loop=loop, memory=memory)
    whole = build_source(settings, None)
    later = build_source(settings, None, start)
    for _ in range(start):
        whole.take(0.0)
    for _ in range(15):
        expected, actual = whole.take(0.0), later.take(0.0)
        assert isinstance(actual, np.ndarray) == isinstance(expected, np.ndarray)
        if isinstance(expected, np.ndarray) and isinstance(actual, np.ndarray):
            assert expected.item() == actual.item()


def test_looping_over_nothing_ends(tmp_path: Path) -> None:
    """A round without one good sample is the last one."""
    np.save(tmp_path / "a.npy", np.zeros((0, 3)))
    (message,) = drain(source(tmp_path, loop=True))
    assert message == f"{tmp_path}: the files hold no samples"
    (tmp_path / "b.csv").write_text("1,2\n")
    (tmp_path / "b.csv").write_text("x\ny\n")
    assert len(drain(source(tmp_path, loop=True))) == 1
    with pytest.raises(DeviceError, match="no sample can be read") as caught:
        source(tmp_path, memory=True)
    assert caught.value.reason == Reason.SOURCE_FAILED


def test_memory_has_a_bound(tmp_path: Path) -> None:
    """More than 256 MB is refused at the start, with a way out."""
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (300, 1 << 20)}
        npy.write_array_header_1_0(file, header)
        file.truncate(file.tell() + (300 << 20))  # a hole: no disk is used
    with pytest.raises(DeviceError, match="more than 256 MB") as caught:
        source(tmp_path / "a.npy", memory=True)
    assert "memory = false" in caught.value.todo


def test_a_rate_is_an_absolute_schedule(tmp_path: Path) -> None:
    """Samples are due one period apart, and ``ready_ns`` says when."""
    np.save(tmp_path / "a.npy", np.zeros((4, 1)))
    settings = FilesSource(path=str(tmp_path), rate=1000.0)
    built = build_source(settings, None)
    begun_ns = time.perf_counter_ns()
    due = []
    while not built.ended:
        if built.take(1.0) is not None:
            due.append(built.ready_ns)
            assert built.ready_ns <= time.perf_counter_ns()
    assert due[0] >= begun_ns
    assert np.diff(due).tolist() == [1_000_000] * 3


def test_waiting_is_bounded(tmp_path: Path) -> None:
    """A sample that is due later than ``timeout_s`` is not waited for."""
    np.save(tmp_path / "a.npy", np.zeros((2, 1)))
    built = build_source(FilesSource(path=str(tmp_path), rate=0.001), None)
    assert built.take(0.0) is not None
    assert built.take(0.001) is None
    assert not built.ended


@given(
    rate_hz=st.floats(0.01, 1e6),
    begin_ns=st.integers(0, 10**15),
    count=st.integers(1, 50),
)
def test_schedule_does_not_drift(rate_hz: float, begin_ns: int, count: int) -> None:
    """Law: taken in time, sample k is due k periods after the first."""
    schedule = Schedule(rate_hz)
    schedule.begin(begin_ns)
    for _ in range(count):
        schedule.advance(schedule.due_ns)
    assert abs(schedule.due_ns - begin_ns - count * 1e9 / rate_hz) <= 1.0 + count * 1e-3


@given(
    rate_hz=st.floats(1.0, 1000.0),
    delays_ns=st.lists(st.integers(0, 3 * 10**9), max_size=30),
)
def test_schedule_catches_up_a_second_at_most(
    rate_hz: float, delays_ns: list[int]
) -> None:
    """Law: due times never go back, never lag more than a second behind."""
    schedule = Schedule(rate_hz)
    schedule.begin(0)
    now_ns = 0
    for delay_ns in delays_ns:
        before_ns = schedule.due_ns
        now_ns = max(now_ns, before_ns) + delay_ns
        schedule.advance(now_ns)
        assert schedule.due_ns > before_ns
        assert schedule.due_ns >= now_ns - MAX_BACKLOG_NS


def test_public_inputs(models: Path) -> None:
    """Recordings and pictures that no one here made are read."""
    words = [x for x in drain(source(models / "audio")) if isinstance(x, np.ndarray)]
    assert {x.dtype for x in words} == {np.dtype(np.float32)}
    assert max(float(np.abs(x).max()) for x in words) <= 1.0
    (person,) = drain(source(models / "images" / "person.bmp"))
    assert isinstance(person, np.ndarray)
    assert person.dtype == np.uint8
    assert person.ndim == 3
