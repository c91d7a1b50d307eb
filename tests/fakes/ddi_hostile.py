"""All lies of a hostile DDI server by name, each with the resource that tells it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.fakes import ddi_lies as lies
from tests.fakes.ddi_actions import Artifact, Chunk
from tests.fakes.ddi_server import TARGET_KEY, Lie

POLL, ORDER, FEEDBACK = "poll", "deploymentBase", "feedback"
GIBIBYTE = 2**30
DEEP = b"[" * 60_000
FLOOD = "y" * 70_000  # more than a header may have
MANY = 5_000


NEVER = lies.status(500)


@dataclass(frozen=True)
class Attack:
    """One lie, or an order that is one.

    Attributes:
        kind: The resource that lies; empty for an honest one.
        lie: Takes the stranger's address.
        chunks: What is ordered; none: an honest version.
    """

    name: str
    kind: str = ""
    lie: Callable[[str], Lie] = lambda _stranger: NEVER
    chunks: Sequence[Chunk] = ()


def _told(kind: str, **named: Lie) -> Iterator[Attack]:
    """Yield lies that need no stranger."""
    for name, lie in named.items():

        def told(_stranger: str, lie: Lie = lie) -> Lie:
            return lie

        yield Attack(f"{kind} {name}", kind, told)


def _abroad(kind: str, **named: Callable[[str], Lie]) -> Iterator[Attack]:
    """Yield lies about a stranger."""
    for name, lie in named.items():
        yield Attack(f"{kind} {name}", kind, lie)


def _ordered(**named: Chunk | Sequence[Chunk]) -> Iterator[Attack]:
    """Yield orders that are lies."""
    for name, chunks in named.items():
        some = [chunks] if isinstance(chunks, Chunk) else chunks
        yield Attack(f"order {name}", chunks=some)


def _target(path: str) -> Chunk:
    """Return an order for a target."""
    return Chunk(metadata={TARGET_KEY: path})


def _pointer(content: bytes, said_size: int | None = None) -> Chunk:
    """Return an order by a pointer."""
    return Chunk(artifacts=[Artifact("model.ptr", content, said_size)])


def _bodies(kind: str) -> Iterator[Attack]:
    """Yield what any resource may answer instead of what it should."""
    yield from _told(
        kind,
        web_page=lies.text("<html>Please log in</html>", Content_Type="text/html"),
        no_body=lies.text(b""),
        list=lies.text(b"[]"),
        deep=lies.text(DEEP),
        no_text=lies.text(b"\xff\xfe\x00"),
        not_a_number=lies.text(b'{"id": NaN, "config": Infinity}'),
        packed=lies.text(b"\x1f\x8b\x08\x00", Content_Encoding="gzip"),
        header_flood=lies.text(b"{}", X_Flood=FLOOD),
        half=lies.half,
        too_long=lies.promised(GIBIBYTE),
        too_short=lies.promised(3),
        dripped=lies.dripped,
        silent=lies.silent,
        endless=lies.endless,
        hung_up=lies.cut,
        status_204=lies.status(204),
        status_304=lies.status(304),
        status_400=lies.status(400),
        status_403=lies.status(403),
        status_404=lies.status(404),
        status_410=lies.status(410),
        status_429=lies.status(429, Retry_After="9" * 40),
        status_503=lies.status(503, Retry_After="Sun, 06 Nov 99999 08:49:37 GMT"),
    )
    yield from _abroad(
        kind,
        moved=lambda url: lies.redirect(url, 301),
        found=lambda url: lies.redirect(url, 302),
        same_method_there=lambda url: lies.redirect(url, 307),
    )


def _polls() -> Iterator[Attack]:
    """Yield what a poll may say."""
    yield from _told(
        POLL,
        no_config=lies.without("config"),
        config_null=lies.replaced("config", None),
        config_text=lies.replaced("config", "00:05:00"),
        sleep_nonsense=lies.sleep("99:99:99"),
        sleep_negative=lies.sleep("-1:00:00"),
        sleep_zero=lies.sleep("00:00:00"),
        sleep_number=lies.sleep(-5),
        sleep_list=lies.sleep(["00:00:01"]),
        sleep_for_ever=lies.sleep("9999:59:59"),
        no_links=lies.without("_links"),
        links_null=lies.replaced("_links", None),
        links_list=lies.replaced("_links", []),
        no_href=lies.without("href"),
        href_number=lies.replaced("href", 5),
        href_long=lies.replaced("href", "/" + "x" * 100_000),
        href_file=lies.replaced("href", "file:///etc/passwd"),
        href_script=lies.replaced("href", "javascript:alert(1)"),
        href_climbs=lies.replaced("href", "../pi-8/deploymentBase/1"),
        href_climbs_quoted=lies.replaced("href", "deploymentBase/..%2f..%2fpi-8"),
        href_line=lies.replaced("href", "/x\r\nAuthorization: none"),
        more_words=lies.edited(lambda tree: tree | {"x": {"y": [1, {}]}}),
    )
    yield from _abroad(
        POLL,
        href_foreign=lies.links,
        href_no_scheme=lambda url: lies.links(url.removeprefix("http:")),
        href_user=lambda url: lies.links(url.replace("//", "//127.0.0.1@")),
        href_other_name=lambda url: lies.links(url.replace("127.0.0.1", "localhost")),
    )


def _orders() -> Iterator[Attack]:
    """Yield what an order may say."""
    yield from _told(
        ORDER,
        other_id=lies.replaced("id", "999"),
        id_path=lies.replaced("id", "../../x"),
        no_id=lies.without("id"),
        no_deployment=lies.without("deployment"),
        no_chunks=lies.replaced("chunks", []),
        chunks_null=lies.replaced("chunks", None),
        many_chunks=lies.replaced("chunks", [{"name": "x"}] * MANY),
        no_metadata=lies.without("metadata"),
        other_mode=lies.replaced("download", "maybe"),
        mode_null=lies.replaced("update", None),
        other_window=lies.edited(
            lambda tree: tree["deployment"].update(maintenanceWindow="sometimes")
        ),
    )
    yield from _abroad(ORDER, links_foreign=lies.links)
    yield from _ordered(
        version_99=_target("models/kws/99.bundle"),
        unknown_model=_target("models/other/2.bundle"),
        group_file=_target("fleet/groups/all"),
        path=_target("models/../../etc/passwd"),
        address=_target("https://other.example/models/kws/2.bundle"),
        no_number=_target("models/kws/-1.bundle"),
        large_number=_target(f"models/kws/{2**63}.bundle"),
        nothing=Chunk(),
        two_versions=[_target("models/kws/1.bundle"), _target("models/kws/2.bundle")],
        pointer_nonsense=_pointer(b"\x00" * 64),
        pointer_lies_short=_pointer(b"models/kws/2.bundle", said_size=3),
        pointer_lies_long=_pointer(b"models/kws/2.bundle", said_size=4000),
        pointer_of_a_gigabyte=_pointer(b"x", said_size=GIBIBYTE),
        pointer_negative=_pointer(b"x", said_size=-1),
    )


def attacks() -> list[Attack]:
    """Return all of them."""
    return [
        *_bodies(POLL),
        *_polls(),
        *_bodies(ORDER),
        *_orders(),
        *_bodies(FEEDBACK),
        *_told(FEEDBACK, twice=lies.twice),
        *_bodies("configData"),
        *_bodies("cancelAction"),
        *_told(
            "cancelAction",
            other_id=lies.replaced("id", "9"),
            other_action=lies.replaced("stopId", "1"),
            no_action=lies.without("cancelAction"),
        ),
        *_bodies("confirmationBase"),
        *_told(
            "confirmationBase",
            other_id=lies.replaced("id", "9"),
            nothing=lies.without("confirmation"),
            no_chunks=lies.replaced("chunks", []),
        ),
    ]
