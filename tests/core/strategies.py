"""Generated values of what crosses folders: executors, sources, sinks, settings."""

from posixpath import normpath

from hypothesis import strategies as st

from agent.core.executors import DelegateFile, Executor
from agent.core.flow import (
    PIXEL_FORMATS,
    BoardSource,
    CommandSink,
    CommandSource,
    CountSink,
    FileSink,
    FilesSource,
    LinesSink,
)
from agent.settings import (
    BoardSettings,
    LocalSettings,
    PipelineSettings,
    Settings,
    SuperviseSettings,
    UpdateSettings,
)

# Everything TOML and msgpack can carry; lone surrogates are no text.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
words = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True)
commands = st.lists(texts, min_size=1, max_size=4).map(tuple)
rates = st.floats(min_value=0, max_value=1e6)
seconds = st.floats(min_value=1e-3, max_value=1e7)

delegates = st.builds(
    DelegateFile,
    name=words,
    path=paths,
    sha256=digests,
    options=st.dictionaries(texts, texts, max_size=2),
)
executors = st.builds(
    Executor,
    engine=st.sampled_from(["litert", "tflite"]),
    kernels=st.sampled_from(["xnnpack", "plain", "reference", "delegate"]),
    threads=st.integers(min_value=1, max_value=64),
    engine_version=texts,
    delegate=st.none() | delegates,
)
pixel_sources = st.builds(
    CommandSource,
    command=commands,
    format=st.sampled_from(PIXEL_FORMATS),
    width=st.integers(min_value=1, max_value=99).map(lambda half: half * 2),
    height=st.integers(min_value=1, max_value=99).map(lambda half: half * 2),
    stride=st.just(0) | st.sampled_from([1000, 2000, 262_144]),
    live=st.booleans(),
)
value_sources = st.builds(
    CommandSource,
    command=commands,
    format=st.sampled_from(["s16le", "f32le"]),
    values=st.integers(min_value=1, max_value=16_777_216),
    silent_s=st.floats(min_value=1e-3, max_value=86_400),
)


def has_own_sink_files(drawn: Settings) -> bool:
    """Whether no two sinks write the same file, which settings must not say."""
    paths = [
        normpath(sink.path)
        for pipeline in drawn.pipeline
        for sink in pipeline.sinks
        if isinstance(sink, FileSink)
    ]
    return len(paths) == len(set(paths))


sources = (
    st.builds(FilesSource, path=texts, array=texts, rate=rates, loop=st.booleans())
    | pixel_sources
    | value_sources
    | st.builds(BoardSource, rate=st.floats(min_value=0.01, max_value=100))
)
sinks = st.one_of(
    st.just(LinesSink()),
    st.just(CountSink()),
    st.builds(FileSink, path=texts, keep=st.integers(min_value=0, max_value=1000)),
    st.builds(CommandSink, command=commands),
)
pipelines = st.builds(
    PipelineSettings,
    name=words,
    model=words,
    source=sources,
    sinks=st.lists(sinks, max_size=4).map(tuple),
    deadline_ms=st.floats(min_value=1e-3, max_value=3_600_000),
    threads=st.integers(min_value=1, max_value=64),
    kernels=st.sampled_from(["auto", "xnnpack", "plain", "reference", "delegate"]),
)
settings = st.builds(
    Settings,
    pipeline=st.lists(pipelines, max_size=3, unique_by=lambda p: p.name).map(tuple),
    state_dir=texts,
    log_level=st.sampled_from(["debug", "info", "warning", "error"]),
    update=st.builds(
        UpdateSettings,
        repository=texts,
        root=paths,
        groups=st.lists(words, max_size=3).map(tuple),
        poll_s=seconds,
    ),
    local=st.builds(LocalSettings, socket=texts),
    board=st.builds(
        BoardSettings, id=texts, hardware=st.lists(texts, max_size=2).map(tuple)
    ),
    supervise=st.builds(SuperviseSettings, backoff_s=seconds),
    delegate=st.lists(delegates, max_size=2).map(tuple),
).filter(has_own_sink_files)
