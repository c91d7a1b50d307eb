"""Sources that go wrong, sources that are real, and sinks that keep up or do not."""

import os
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from agent.core.steps import Mfcc, Window
from agent.publish.pack import render_bundle
from tests.conftest import find_tool
from tests.e2e.conftest import FULL_LOAD, MakeBoard, Table
from tests.fakes.daemon_process import DaemonProcess, read_lines, wait_until
from tests.fakes.fleet import MODEL, STREAM, Fleet
from tests.fakes.tiny_models import content, manifest, record

SIDE = 8  # the demo's digits are 8 x 8 pixels
FRAME = SIDE * SIDE
GRAY: Table = {"kind": "command", "format": "gray8", "width": SIDE, "height": SIDE}


def python(script: str, **more: object) -> dict[str, object]:
    """Return a source whose program is a line of Python that writes to ``out``."""
    head = "import sys, time; out = sys.stdout.buffer; "
    return {**GRAY, "command": [sys.executable, "-c", head + script], **more}


def began(
    make_board: MakeBoard, fleet: Fleet, source: Mapping[str, object]
) -> DaemonProcess:
    """Start a board with version 1 committed."""
    fleet.publish(1)
    board = make_board(source=source)
    board.start()
    board.wait_for(lambda: board.pipeline()["active"], "a committed model")
    return board


def counted(board: DaemonProcess, what: str, least: int = 1) -> bool:
    """Whether an outcome or its reason was counted so often."""
    sums = board.samples()
    return int(sums.get(what, sums["reasons"].get(what, 0))) >= least


def test_a_missing_program_is_named_and_nothing_else_suffers(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """/readyz says source_missing; the daemon is healthy and updates go on."""
    source = {**GRAY, "command": ["tinyward-no-such-camera"]}
    board = began(make_board, fleet, source)
    board.wait_for(lambda: board.readiness() == (503, "source_missing"), "the reason")
    assert board.get("/healthz")[0] == 200
    assert "tinyward-no-such-camera is not installed" in board.words()
    fleet.publish(2)
    board.wait_for(lambda: board.pipeline()["active"]["version"] == 2, "version 2")


def test_a_program_that_dies_is_started_again(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Each life's frames are answered; its last words are logged."""
    script = f"out.write(bytes({3 * FRAME})); out.flush(); sys.exit('unplugged')"
    board = began(make_board, fleet, python(script, live=False))
    board.wait_for(partial(counted, board, "ok", 6), "answers of two lives")
    assert "reason=source_failed" in board.words()
    assert "unplugged" in board.words()
    assert board.samples()["failed"] == 0


def test_half_a_frame_is_counted_as_partial(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """What was begun and never completed is dropped with its reason."""
    script = f"out.write(bytes({FRAME + FRAME // 2})); out.flush()"
    board = began(make_board, fleet, python(script, live=False))
    board.wait_for(partial(counted, board, "partial"), "a partial frame")
    board.wait_for(partial(counted, board, "ok"), "a whole frame")
    assert board.samples()["failed"] == 0


def test_a_stream_without_frames_is_silent_and_started_again(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Bytes for ever and no picture: source_silent, and another try."""
    source = {
        "kind": "command",
        "format": "mjpeg",
        "silent_s": 0.7,
        "command": ["cat", "/dev/zero"],
    }
    board = began(make_board, fleet, source)
    board.wait_for(lambda: board.readiness() == (503, "source_silent"), "the reason")
    said = "program.ended program=digits-source reason=source_silent"
    board.wait_for(lambda: board.words().count(said) >= 2, "two restarts")
    assert board.get("/healthz")[0] == 200
    assert board.pipeline()["restarts"] == {}


def test_readings_of_nan_fail_and_the_others_go_on(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """A sensor that says NaN costs its sample, counted as failed/input."""
    samples = np.full((10, SIDE, SIDE, 1), 8.0, np.float32)
    samples[3, 2, 2, 0] = np.nan
    np.save(tmp_path / "readings.npy", samples)
    source = {"kind": "files", "path": tmp_path / "readings.npy"}
    board = began(make_board, fleet, source)
    board.wait_for(lambda: board.samples()["in"] == 10, "all samples")
    sums = board.samples()
    assert (sums["ok"], sums["failed"], sums["reasons"]) == (9, 1, {"input": 1})
    (said,) = [line for line in board.words().splitlines() if "NaN" in line]
    assert "warning child.said pipeline=digits reason=input text=" in said


def test_a_wrong_file_among_pictures_fails_alone(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """Text named .png, a cut picture and one of another size: three failures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        picture = Image.fromarray(np.full((SIDE, SIDE), number, np.uint8))
        picture.save(folder / f"{number}-good.png")
    (folder / "1-text.png").write_text("no picture at all")
    whole = (folder / "0-good.png").read_bytes()
    (folder / "2-cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (SIDE + 1, SIDE)).save(folder / "3-large.png")
    board = began(make_board, fleet, {"kind": "files", "path": folder})
    board.wait_for(lambda: board.samples()["in"] == 8, "all files")
    sums = board.samples()
    assert (sums["ok"], sums["failed"], sums["reasons"]) == (5, 3, {"input": 3})


def test_a_missing_recording_is_named_and_blamed_on_no_model(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """Not ready, and named; updates are committed meanwhile, and answer later."""
    folder = tmp_path / "recording"
    shutil.copytree(STREAM.parent, folder, ignore=shutil.ignore_patterns("digits-[12]"))
    stream = folder / STREAM.name
    fleet.publish(1)
    board = make_board(source={**FULL_LOAD, "path": stream})
    with board:
        board.wait_version(1)
    stream.rename(folder / "moved")
    with board:
        board.wait_for(
            lambda: board.readiness() == (503, "source_missing"), "the reason"
        )
        assert board.get("/healthz")[0] == 200
        assert str(stream) in board.words()
        fleet.publish(2)
        board.wait_for(lambda: board.pipeline()["active"]["version"] == 2, "version 2")
        assert board.readiness() == (503, "source_missing")
        assert board.pipeline()["restarts"] == {}
        (folder / "moved").rename(stream)
        board.wait_version(2)


def test_a_live_camera_keeps_the_newest_frame(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """The real ffmpeg, faster than any model: the newest wins, the rest is counted."""
    ffmpeg = find_tool("ffmpeg")
    pattern = f"testsrc=size={SIDE}x{SIDE}:rate=30"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", pattern]
    command += ["-f", "rawvideo", "-pix_fmt", "gray", "-"]
    board = began(make_board, fleet, {**GRAY, "command": command})
    board.wait_for(partial(counted, board, "ok", 50), "answers")
    board.wait_for(partial(counted, board, "overrun"), "frames that were dropped")
    sums = board.samples()
    assert sums["in"] - sums["ok"] - sums["dropped"] in (0, 1)
    assert set(sums["reasons"]) == {"overrun"}
    assert board.metrics()['tinyward_source_lag_seconds{pipeline="digits"}'] >= 0.0


def test_a_camera_goes_on_when_its_worker_is_replaced(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """MJPEG finds its frames by itself: the program of a dead worker keeps running."""
    ffmpeg = find_tool("ffmpeg")
    pattern = f"testsrc=size={SIDE}x{SIDE}:rate=30,format=gray"
    command = [ffmpeg, "-v", "error", "-re", "-f", "lavfi", "-i", pattern]
    command += ["-f", "mjpeg", "-pix_fmt", "gray", "-strict", "-1", "-"]
    source = {"kind": "command", "format": "mjpeg", "command": command}
    board = began(make_board, fleet, source)
    board.wait_for(partial(counted, board, "in", 5), "pictures")
    programs = board.words().count("program.ended")
    worker = board.worker_pid()
    os.kill(worker, 9)
    board.wait_for(lambda: board.worker_pid() not in (0, worker), "another worker")
    before = board.samples()["in"]
    board.wait_for(partial(counted, board, "in", before + 5), "pictures")
    assert board.words().count("program.ended") == programs == 0


def test_the_board_itself_is_a_source(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """Live input on every machine: eight readings become four numbers, answered."""
    steps = (Window(length=1, hop=1), Mfcc(count=4))
    stated = manifest("dynamic_batch", model=MODEL, preprocess=steps)
    readings = np.arange(32, dtype=np.float32).reshape(4, 8)
    stated, golden = record(stated, [readings])
    models = {"dynamic_batch": content("dynamic_batch")}
    fleet.publish(1, render_bundle(stated, models, golden))
    path = tmp_path / "readings.jsonl"
    board = make_board(
        source={"kind": "board", "rate": 50.0}, sinks=[{"kind": "file", "path": path}]
    )
    with board:
        board.wait_version(1)
        board.wait_for(partial(counted, board, "ok", 10), "answers")
        sums = board.samples()
    assert sums["failed"] == 0
    wait_until(lambda: len(read_lines(path)) >= 10, "lines")
    outputs = read_lines(path)[0]["outputs"]
    assert len(outputs) == 1


def test_lines_go_to_standard_output_and_to_programs(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """Each sink gets each line, and nothing but lines."""
    fleet.publish(1)
    path = tmp_path / "program.jsonl"
    sinks: list[Table] = [
        {"kind": "stdout"},
        {"kind": "command", "command": ["tee", str(path)]},
    ]
    board = make_board(source={**FULL_LOAD, "rate": 200.0}, sinks=sinks)
    with board:
        board.wait_version(1)
        wait_until(lambda: path.exists() and len(read_lines(path)) > 20, "lines")
        wait_until(lambda: len(read_lines(board.out)) > 20, "lines")
    for file in (path, board.out):
        lines = read_lines(file)
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert {(row["pipeline"], row["model"], row["version"]) for row in lines} == {
            ("digits", "digits", 1)
        }
        assert all(line["label"] in set("0123456789") for line in lines)


def test_a_slow_sink_drops_and_the_loop_goes_on(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """A program that never reads: predictions are dropped and counted, samples not."""
    fleet.publish(1)
    sleep: Table = {"kind": "command", "command": ["sleep", "600"]}
    board = make_board(sinks=[sleep, {"kind": "count"}])
    with board:
        board.wait_version(1)
        name = 'tinyward_sink_dropped_total{pipeline="digits",sink="0-command"}'
        board.wait_for(lambda: board.metrics()[name] > 100, "drops")
        answered = board.samples()["ok"]
        board.wait_for(partial(counted, board, "ok", answered + 1000), "answers")
        sums = board.samples()
        assert (sums["failed"], sums["dropped"]) == (0, 0)
