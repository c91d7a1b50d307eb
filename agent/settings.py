"""agent.toml -> Settings: every default, its unit and its reason.

The rules this module keeps:
 * ``parse_settings`` is pure: bytes in, frozen values out; reading the file is the
   command line's job. Unknown keys, wrong types and contradictions are errors that
   name the key.
 * Every number has its unit in its name and its reason beside it.
 * Paths stay as written; only ``~`` is left for the command line to resolve.
"""

import tomllib
from posixpath import normpath
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from agent.core.degradation import DegradeSteps
from agent.core.executors import DelegateFile
from agent.core.fleet_settings import FleetSettings
from agent.core.flow import (
    CommandSource,
    CountSink,
    FileSink,
    SinkSettings,
    SourceSettings,
)
from agent.core.mistakes import describe_mistake
from agent.core.protect_settings import (
    AuditSettings,
    IntegritySettings,
    MeterSettings,
    SealSettings,
    Unpaid,
)
from agent.core.reasons import Reason
from agent.core.schedule import parse_window
from agent.core.statistics_block import MAX_SINKS
from agent.errors import BundleRefusedError, SettingsError

MAX_SETTINGS_BYTES = 1024 * 1024  # nobody writes a megabyte of TOML by hand
Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)")]
Celsius = Annotated[float, Meta(ge=0, le=150)]
Seconds = Annotated[float, Meta(gt=0, le=1e7)]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every settings table: immutable and strict."""


class PipelineSettings(Table, frozen=True):
    """[[pipeline]]: one model on one source.

    Attributes:
        name: The pipeline's name in metrics, paths and commands.
        model: Which model the fleet assigns to it.
        source: Where samples come from.
        sinks: Where predictions go.
        factory: A repository slice shipped with the system; empty means none.
        deadline_ms: A sample that takes longer is a hang; its worker is replaced.
        threads: Threads of the interpreter; small models are fastest with one.
        kernels: ``auto`` lets preflight choose the fastest that agrees.
        degrade: What it does less at each level of degradation; without it the
            manifest says.
        unpaid: What it does once no paid unit is left; only where units are metered.
    """

    name: Word
    model: Word
    source: SourceSettings
    sinks: Annotated[tuple[SinkSettings, ...], Meta(max_length=MAX_SINKS)] = (
        CountSink(),
    )
    factory: str = ""
    deadline_ms: Annotated[float, Meta(gt=0, le=3_600_000)] = 5000.0
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    kernels: Literal["auto", "xnnpack", "plain", "reference", "delegate"] = "auto"
    degrade: DegradeSteps | None = None
    unpaid: Unpaid = Unpaid()


class UpdateSettings(Table, frozen=True):
    """[update]: where verified models come from.

    Attributes:
        orchestrator: Who writes the desired state.
        repository: The TUF repository: a directory or an https:// address; empty means
            that models come by ``tinyward push`` and ``import`` alone.
        root: The first root.json, provisioned with the board.
        groups: Group files to follow, most specific first.
        poll_s: Seconds between two looks at the repository.
        max_bundle_mb: Larger bundles are refused before they are read.
        quota_mb: What all stored models together may take; the active, previous and
            factory models are never removed for it.
        ca: CAs (PEM) that may vouch for the repository's server; empty means the
            system's.
        certificate: This board's client certificate (PEM) for the repository's server;
            empty means none.
        key: The private key of that certificate (PEM).
        proxy: ``http://host:port``; the environment's proxy variables are not read.
        min_kbps: Kilobytes a second below which a download is broken off and resumed
            later.
        deadline_s: How long one metadata file, or one connection for a bundle, may
            take in all.
    """

    orchestrator: Literal["tuf", "push", "ddi"] = "tuf"
    repository: str = ""
    root: str = ""
    groups: Annotated[tuple[Word, ...], Meta(max_length=32)] = ("all",)
    poll_s: Seconds = 300.0  # 5 min: the default of hawkBit and Mender alike
    max_bundle_mb: Annotated[float, Meta(gt=0, le=65_536)] = 512.0
    quota_mb: Annotated[float, Meta(gt=0, le=1_000_000)] = 4096.0
    ca: str = ""
    certificate: str = ""
    key: str = ""
    proxy: str = ""
    min_kbps: Annotated[float, Meta(gt=0, le=1e6)] = 1.0  # a GPRS modem has 5
    deadline_s: Seconds = 3600.0  # 512 MB at 1.2 Mbit/s


class LocalSettings(Table, frozen=True):
    """[local]: the plain HTTP listener for scrapers and people on the board.

    Attributes:
        listen: ``host:port`` (port 0: any free one), or empty for none.
        socket: Unix socket; empty means ``<state_dir>/control.sock``.
    """

    listen: str = "127.0.0.1:9797"
    socket: str = ""


class ControlSettings(Table, frozen=True):
    """[control]: the TLS listener for operators and fleet servers; off by default.

    Attributes:
        listen: ``host:port``, or empty for none.
        certificate: The board's certificate (PEM, its chain behind it), where the
            daemon may write: it renews it.
        key: The private key of that certificate (PEM).
        client_ca: CAs (PEM) whose client certificates are let in.
        max_upload_mb: What uploads may take on disk together.
    """

    listen: str = ""
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    max_upload_mb: Annotated[float, Meta(gt=0, le=1_000_000)] = 1024.0


class BoardSettings(Table, frozen=True):
    """[board]: what this board calls itself.

    Attributes:
        id: Its name in staged rollouts; empty means a random one kept in the state.
        hardware: Names that bundles may ask for; empty means what the board reports.
    """

    id: Annotated[str, Meta(max_length=128)] = ""
    hardware: Annotated[tuple[str, ...], Meta(max_length=32)] = ()


class SuperviseSettings(Table, frozen=True):
    """[supervise]: how long a worker may misbehave.

    Attributes:
        start_s: A worker that is not up by then is replaced; a Pi 3 imports for 1 s.
        crash_limit: Deaths in a row after which the previous model takes over.
        healthy_s: A worker that lived so long ends a row of deaths.
        backoff_s: First pause before a restart; doubled each time.
        max_backoff_s: Longest pause before a restart.
        drain_s: How long a worker may take to end its last sample; systemd
            waits longer.
    """

    start_s: Seconds = 30.0
    crash_limit: Annotated[int, Meta(ge=1, le=100)] = 3
    healthy_s: Seconds = 60.0
    backoff_s: Seconds = 0.5
    max_backoff_s: Seconds = 30.0
    drain_s: Seconds = 3.0


class MonitorSettings(Table, frozen=True):
    """[monitor]: watching input and output for drift.

    Attributes:
        cpu_share: What watching may cost of a worker's time; 0 turns it off.
        privacy: Show windows instead of live counts, no labels, and no small counts.
        site_samples: Watched samples that make this board's own baseline; of more than
            2,000 so many are kept, evenly spread.
        max_series: What ``/metrics`` may show at most; the least telling are left out.
    """

    cpu_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.02
    privacy: bool = False
    site_samples: Annotated[int, Meta(ge=200, le=20_000)] = 2000
    max_series: Annotated[int, Meta(ge=100, le=100_000)] = 1000


class DegradeSettings(Table, frozen=True):
    """[degrade]: when a board does less instead of dying.

    Attributes:
        hot_c: Hottest sensor from which a pipeline is ``suspect``.
        very_hot_c: The same for ``degraded``.
        low_memory_mb: Available memory below which a pipeline is ``suspect``; below
            half of it ``degraded``.
        stalled_percent: Share of time spent waiting for memory (PSI) that is
            ``suspect``; five times as much ``degraded``.
        missed_share: Share of answers later than the model's p95 budget that is
            ``suspect``; twice as much ``degraded``.
        crashes: Deaths of a worker within ten minutes that are ``suspect``; one more is
            ``degraded``.
        drift: The highest level that drift of the input or output leads to.
        patience_s: How long ``degraded`` may fail to help before it is ``safe``.
        calm_s: How long everything has to be well before the next lower level.
    """

    hot_c: Celsius = 80.0  # a Pi 4 throttles at 80, softly
    very_hot_c: Celsius = 85.0  # and hard at 85
    low_memory_mb: Annotated[float, Meta(ge=0, le=1e6)] = 48.0  # a worker's start
    stalled_percent: Annotated[float, Meta(gt=0, le=100)] = 10.0
    missed_share: Annotated[float, Meta(gt=0, le=1)] = 0.2  # p95 promises 0.05
    crashes: Annotated[int, Meta(ge=1, le=1000)] = 2
    drift: Literal["normal", "suspect", "degraded", "safe"] = "suspect"
    patience_s: Seconds = 120.0
    calm_s: Seconds = 60.0


class Settings(Table, frozen=True):
    """Everything in agent.toml.

    Attributes:
        pipeline: Tables ``[[pipeline]]``, one for each model that runs.
        state_dir: Where state.db and models live; empty means ``$STATE_DIRECTORY``,
            else ``~/.local/state/tinyward``.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        update: Table ``[update]``; ``local``, ``control``, ``board``, ``supervise``,
            ``monitor``, ``degrade``, ``fleet``, ``seal``, ``audit``, ``meter`` and
            ``integrity`` likewise.
        delegate: Tables ``[[delegate]]``, one for each library that is allowed.
    """

    pipeline: Annotated[tuple[PipelineSettings, ...], Meta(max_length=64)] = ()
    state_dir: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    update: UpdateSettings = UpdateSettings()
    local: LocalSettings = LocalSettings()
    control: ControlSettings = ControlSettings()
    board: BoardSettings = BoardSettings()
    supervise: SuperviseSettings = SuperviseSettings()
    monitor: MonitorSettings = MonitorSettings()
    degrade: DegradeSettings = DegradeSettings()
    fleet: FleetSettings = FleetSettings()
    seal: SealSettings = SealSettings()
    audit: AuditSettings = AuditSettings()
    meter: MeterSettings = MeterSettings()
    integrity: IntegritySettings = IntegritySettings()
    delegate: Annotated[tuple[DelegateFile, ...], Meta(max_length=16)] = field(
        default=()
    )


def parse_settings(raw: bytes) -> Settings:
    """Parse and check the settings.

    Raises:
        SettingsError: ``settings``; the message names the key and what is wrong.
    """
    if len(raw) > MAX_SETTINGS_BYTES:
        raise _wrong(f"the file has {len(raw)} bytes, at most {MAX_SETTINGS_BYTES}")
    try:
        tree = tomllib.loads(raw.decode("utf-8"))
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as err:
        raise _wrong(describe_mistake(str(err))) from err
    except ValueError as err:  # no UTF-8, no TOML, an integer of 4,301 digits
        raise _wrong(f"not TOML: {err}") from err
    except RecursionError as err:
        raise _wrong("not TOML: nested too deeply") from err
    check_settings(settings)
    return settings


def check_settings(settings: Settings) -> None:
    """Check what types alone cannot say.

    Raises:
        SettingsError: ``settings``.
    """
    names = [pipeline.name for pipeline in settings.pipeline]
    for name in names:
        if names.count(name) > 1:
            raise _wrong(f"pipeline: two pipelines are called {name!r}")
    for index, pipeline in enumerate(settings.pipeline):
        if isinstance(pipeline.source, CommandSource):
            pipeline.source.check(f"pipeline[{index}].source")
    if settings.update.repository and not settings.update.root:
        raise _wrong("update.root: a repository needs the root.json to trust")
    slices = [pipeline.factory for pipeline in settings.pipeline if pipeline.factory]
    if slices and not settings.update.root:
        raise _wrong("update.root: a factory slice is verified against it")
    _check_sink_files(settings)
    _check_listen("local", settings.local.listen)
    _check_control(settings.control)
    _check_degrade(settings.degrade)
    _check_ddi(settings)
    _check_seal(settings.seal)
    if bool(settings.update.certificate) != bool(settings.update.key):
        raise _wrong("update.certificate and update.key: one is of no use alone")


def _check_sink_files(settings: Settings) -> None:
    """Two writers would rotate one file away under each other."""
    written: dict[str, str] = {}
    for index, pipeline in enumerate(settings.pipeline):
        for number, sink in enumerate(pipeline.sinks):
            if not isinstance(sink, FileSink):
                continue
            key = f"pipeline[{index}].sinks[{number}].path"
            first = written.setdefault(normpath(sink.path), key)
            if first != key:
                raise _wrong(f"{key}: {first} writes the file {sink.path!r} already")


def _check_degrade(degrade: DegradeSettings) -> None:
    """What is very hot is hot, whichever of the two is left at its default."""
    hot_c, very_hot_c = degrade.hot_c, degrade.very_hot_c
    if hot_c > very_hot_c:
        what = f"{hot_c:g} is above degrade.very_hot_c, which is {very_hot_c:g}"
        raise _wrong(f"degrade.hot_c: {what}: set both")


def _check_ddi(settings: Settings) -> None:
    """Who is orchestrated by a server has to name it, and one way to be let in."""
    ddi = settings.fleet.ddi
    wanted = settings.update.orchestrator == "ddi"
    if wanted and not ddi.url:
        raise _wrong('fleet.ddi.url: update.orchestrator = "ddi" needs it')
    if wanted and not settings.update.repository:
        raise _wrong("update.repository: a DDI server names bundles, and gives none")
    if ddi.token_credential and ddi.token_file:
        raise _wrong("fleet.ddi.token_credential and token_file: name one of them")
    if bool(ddi.certificate) != bool(ddi.key):
        raise _wrong("fleet.ddi.certificate and key: one is of no use alone")
    try:
        parse_window(ddi.window)
    except BundleRefusedError as err:
        raise _wrong(f"fleet.ddi.window: {err}") from err


def _check_seal(seal: SealSettings) -> None:
    """Two keys would open different models, and nobody could say which."""
    if seal.key and seal.credential:
        raise _wrong("seal.key and seal.credential: name one of them")


def _check_control(control: ControlSettings) -> None:
    """A TLS listener needs a certificate, its key, and whom to let in."""
    _check_listen("control", control.listen)
    for key in ("certificate", "key", "client_ca"):
        if control.listen and not getattr(control, key):
            raise _wrong(f"control.{key}: the TLS listener needs it")


def _check_listen(table: str, listen: str) -> None:
    """``host:port``, with a port that exists."""
    if not listen:
        return
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise _wrong(f"{table}.listen: {listen!r} is not host:port")
    if int(port) > 65535:
        raise _wrong(f"{table}.listen: there is no port {port}")


def _wrong(what: str) -> SettingsError:
    """Return the error for settings that cannot be used."""
    return SettingsError(what, reason=Reason.SETTINGS)
