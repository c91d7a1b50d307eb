"""Delegates: a real, tiny one is compiled; the allow-list is the only way to it."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agent.core.executors import DelegateFile, EngineName, Executor
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.engines import available_engines, build_engine
from tests.fakes.tiny_models import content, executor

# Takes over nothing, but is asked, and says so in a file: proof that it was loaded,
# with its options, and given the graph. Layout: tensorflow/lite/core/c/common.h.
SOURCE = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct delegate {
  void *data;
  int (*prepare)(void *context, struct delegate *self);
  void *copy_from, *copy_to, *free_buffer;
  int64_t flags;
  void *opaque_builder;
};
static int prepare(void *context, struct delegate *self) {
  FILE *file = fopen((char *)self->data, "a");
  if (!file) return 1;
  fputs("prepared\n", file);
  fclose(file);
  return 0;
}
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                    void (*report)(const char *)) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(keys[i], "note")) {
      struct delegate *made = calloc(1, sizeof *made);
      made->prepare = prepare;
      made->data = strdup(values[i]);
      return made;
    }
  report("option `note` is missing");
  return NULL;
}
void tflite_plugin_destroy_delegate(struct delegate *made) {
  if (made) free(made->data);
  free(made);
}
"""


@pytest.fixture(scope="module")
def library(
    require_tool: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give a compiled delegate library."""
    compiler = require_tool("gcc")
    folder = tmp_path_factory.mktemp("delegate")
    source, built = folder / "delegate.c", folder / "libnoted.so"
    source.write_text(SOURCE, encoding="utf-8")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-o", built, source], check=True
    )
    return built


def allowed(library: Path, note: Path | None, sha256: str = "") -> DelegateFile:
    """Return the settings' entry for a library."""
    digest = sha256 or hashlib.sha256(library.read_bytes()).hexdigest()
    options = {"note": str(note)} if note else {}
    return DelegateFile("noted", str(library), digest, options)


def with_delegate(delegate: DelegateFile, engine: EngineName = "litert") -> Executor:
    """Return an executor that uses it."""
    return Executor(engine, "delegate", delegate=delegate)


@pytest.mark.parametrize("engine", ["litert", "tflite"])
def test_an_allowed_delegate_is_given_the_graph(
    library: Path, tmp_path: Path, engine: EngineName
) -> None:
    """It is loaded with its options, prepares the graph, and the model answers."""
    if engine not in available_engines():
        pytest.skip(f"runtime {engine} does not work here (Python, numpy < 2)")
    note = tmp_path / "note"
    built = build_engine(
        with_delegate(allowed(library, note), engine), content("quantised")
    )
    (answer,) = built.infer([np.full((1, 4), 9, np.int8)])
    assert note.read_text(encoding="utf-8").startswith("prepared\n")
    np.testing.assert_array_equal([[9] * 4], answer)


def test_a_changed_delegate_is_never_loaded(library: Path, tmp_path: Path) -> None:
    """Another digest than the settings': refused before any of its code runs."""
    note = tmp_path / "note"
    with pytest.raises(TrialFailedError) as caught:
        build_engine(
            with_delegate(allowed(library, note, "0" * 64)), content("quantised")
        )
    assert caught.value.reason == Reason.DELEGATE
    assert not note.exists()


def test_a_delegate_that_declines_is_refused(library: Path) -> None:
    """What it reports is part of the message."""
    with pytest.raises(TrialFailedError, match="`note` is missing") as caught:
        build_engine(with_delegate(allowed(library, None)), content("quantised"))
    assert caught.value.reason == Reason.DELEGATE


@pytest.mark.parametrize("path", ["libnoted.so", "/nowhere/libnoted.so", "/tmp"])  # noqa: S108 - a path that is no file
def test_a_delegate_that_is_no_file_is_refused(path: str) -> None:
    """Missing, relative (the loader would search for it), or a directory."""
    file = DelegateFile("noted", path, "0" * 64)
    wanted = Executor(executor().engine, "delegate", delegate=file)
    with pytest.raises(TrialFailedError) as caught:
        build_engine(wanted, content("quantised"))
    assert caught.value.reason == Reason.DELEGATE


def test_a_library_that_is_no_delegate_is_refused(tmp_path: Path) -> None:
    """The digest agrees, but it does not load."""
    file = tmp_path / "lib.so"
    file.write_bytes(b"no library")
    wanted = Executor(executor().engine, "delegate", delegate=allowed(file, None))
    with pytest.raises(TrialFailedError) as caught:
        build_engine(wanted, content("quantised"))
    assert caught.value.reason == Reason.DELEGATE
