"""An update under full load: nothing lost, nothing twice, every answer its author's."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agent.core.executors import Executor
from agent.worker.content import seal_content
from agent.worker.model import load_model
from agent.worker.runtimes import available_engines
from tests.e2e.conftest import FULL_LOAD, MakeBoard
from tests.fakes.daemon_process import DaemonProcess, Json, read_lines
from tests.fakes.fleet import STREAM, Fleet, bundle, opened_bundle

STEADY = {**FULL_LOAD, "rate": 500.0}


def own_answers(version: int, installed: Json) -> list[tuple[str, float]]:
    """Return (label, score) of each sample of the stream, from the model alone."""
    opened = opened_bundle(bundle(version))
    engine, release = next(iter(available_engines().items()))
    executor = Executor(engine, "plain", 1, release)  # type: ignore[arg-type] # its words
    assert executor.describe() == installed["executor"]
    content = opened.variant_bytes(installed["variant"])
    descriptor = seal_content(bytes(content), installed["variant"])
    try:
        model = load_model(
            1, opened.manifest, installed["variant"], executor, descriptor
        )
        rows = []
        with np.load(STREAM, allow_pickle=False) as stream:
            for sample in stream["images"]:
                inputs = model.preprocess(sample)
                assert inputs is not None
                outputs = model.infer(inputs)
                said = model.describe(inputs, outputs, *model.judge(inputs, outputs))
                rows.append((str(said["label"]), float(str(said["score"]))))
        return rows
    finally:
        os.close(descriptor)


def assert_sums(board: DaemonProcess) -> Json:
    """Every sample that came in is ok, failed, dropped or the one in flight."""
    sums = board.samples()
    ended = sums["ok"] + sums["failed"] + sums["dropped"]
    assert sums["in"] - ended in (0, 1)
    assert (sums["failed"], sums["dropped"]) == (0, 0)
    return sums


@pytest.mark.parametrize("source", [FULL_LOAD, STEADY], ids=["full", "steady"])
def test_an_update_loses_no_sample_and_no_answer_its_author(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path, source: dict[str, object]
) -> None:
    """Sums hold, sequence numbers have no hole that no drop explains, answers fit."""
    path = tmp_path / "predictions.jsonl"
    sink = {"kind": "file", "path": path, "max_mb": 4000.0}
    board = make_board(source=source, sinks=[sink])
    answers = {}
    with board:
        for version in (1, 2):
            fleet.publish(version)
            board.wait_version(version)
            answers[version] = own_answers(version, board.pipeline()["active"])
        assert_sums(board)
        assert board.pipeline()["swaps"] == [{"result": "ok", "reason": "", "count": 2}]
        dropped = sum(board.pipeline()["sink_dropped"].values())
        board.signal(15)
        assert board.wait() == 0
        stopped_with = board.words()
    assert "agent.stopped" in stopped_with
    lines = read_lines(path)
    numbers = [line["seq"] for line in lines]
    assert numbers == sorted(set(numbers))
    holes = numbers[-1] - len(numbers)
    if source is STEADY:
        assert (dropped, holes) == (0, 0)
    else:
        assert holes >= dropped  # it went on dropping until it was stopped
    versions = [line["version"] for line in lines]
    assert versions == sorted(versions)
    assert set(Counter(versions)) == {1, 2}
    wrong = [
        line
        for line in lines
        if (line["label"], line["score"])
        != answers[line["version"]][(line["seq"] - 1) % len(answers[1])]
    ]
    assert wrong == []
    assert answers[1] != answers[2]


def test_swaps_in_a_row_keep_every_sample(make_board: MakeBoard, fleet: Fleet) -> None:
    """Version after version at full speed: in = ok, nothing failed, nothing dropped."""
    board = make_board()
    with board:
        for version in range(1, 9):
            fleet.publish(version)
            board.wait_version(version)
        sums = assert_sums(board)
        metrics = board.metrics()
        models = {row["version"]: row for row in board.pipeline()["models"]}
    assert sorted(models) == list(range(1, 9))
    assert all(row["samples"]["ok"] > 0 for row in models.values())
    assert sums["ok"] > 0
    committed = 'tinyward_updates_total{reason="",result="committed"}'
    assert metrics[committed] == 8
    assert json.dumps(sums["reasons"]) == "{}"
