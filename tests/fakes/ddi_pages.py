"""What a DDI server answers when it is honest: hawkBit's JSON, links and files.

Source: hawkBit 1.1, DataConversionHelper and FileStreamingUtil.
"""

import hashlib
import re
from collections.abc import Mapping

from aiohttp import web

from tests.fakes.ddi_actions import Action, Actions, Artifact, Chunk, Json

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def poll_page(base: str, actions: Actions, sleep: str, curious: bool) -> Json:  # noqa: FBT001 - four facts
    """Return the poll resource.

    Args:
        base: URL of the controller.
        actions: What was ordered.
        sleep: How long to wait before the next poll, as ``HH:MM:SS``.
        curious: The server wants the board's attributes.
    """
    links: dict[str, str] = {}
    due, installed = actions.due(), actions.installed()
    if due is not None and due.waits:
        links["confirmationBase"] = f"{base}/confirmationBase/{due.id}?c={due.stamp}"
    elif due is not None and due.is_cancelled:
        links["cancelAction"] = f"{base}/cancelAction/{due.id}"
    elif due is not None:
        links["deploymentBase"] = f"{base}/deploymentBase/{due.id}?c={due.stamp}"
    if installed is not None:
        links["installedBase"] = f"{base}/installedBase/{installed.id}"
    if curious:
        links["configData"] = f"{base}/configData"
    page: Json = {"config": {"polling": {"sleep": sleep}}}
    return page | (_links(links) if links else {})


def deployment_page(base: str, action: Action, history: int, key: str) -> Json:
    """Return the deployment resource; ``key`` is ``deployment`` or ``confirmation``."""
    deployment: Json = {
        "download": action.download,
        "update": "skip" if action.window == "unavailable" else action.update,
        "chunks": [
            chunk_page(base, chunk, f"{action.id}{number}")
            for number, chunk in enumerate(action.chunks)
        ],
    }
    if action.window:
        deployment["maintenanceWindow"] = action.window
    page: Json = {"id": action.id, key: deployment}
    if history:
        messages = [f"{it.said}: {'; '.join(it.details)}" for it in action.entries]
        newest = messages[::-1] if history < 0 else messages[::-1][:history]
        page["actionHistory"] = {"status": action.status, "messages": newest}
    return page


def chunk_page(base: str, chunk: Chunk, module: str) -> Json:
    """Return a software module."""
    page: Json = {
        "part": "bApp",
        "version": chunk.version,
        "name": chunk.name,
        "artifacts": artifacts_page(base, chunk, module),
    }
    if chunk.metadata:
        rows = [{"key": key, "value": value} for key, value in chunk.metadata.items()]
        page["metadata"] = rows
    return page


def artifacts_page(base: str, chunk: Chunk, module: str) -> list[Json]:
    """Return the files of a software module."""
    pages = []
    for artifact in chunk.artifacts:
        content = artifact.content
        url = f"{base}/softwaremodules/{module}/artifacts/{artifact.filename}"
        # hawkBit names each link by its scheme: ``download`` is HTTPS.
        kind = "" if url.startswith("https:") else "-http"
        links = {f"download{kind}": url, f"md5sum{kind}": f"{url}.MD5SUM"}
        size = artifact.said_size
        page: Json = {
            "filename": artifact.filename,
            "hashes": {
                "sha1": hashlib.sha1(content).hexdigest(),  # noqa: S324 - the format
                "md5": md5(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            },
            "size": len(content) if size is None else size,
        }
        pages.append(page | _links(links))
    return pages


def confirmation_page(base: str, actions: Actions) -> Json:
    """Return what asks for a confirmation."""
    links = {"activateAutoConfirm": f"{base}/confirmationBase/activateAutoConfirm"}
    due = actions.due()
    if due is not None and due.waits:
        links["confirmationBase"] = f"{base}/confirmationBase/{due.id}?c={due.stamp}"
    return {"autoConfirm": {"active": False}, **_links(links)}


def send_artifact(artifact: Artifact, headers: Mapping[str, str]) -> web.Response:
    """Answer with a file, or the part of it that was asked for."""
    content = artifact.content
    tag = f'"{hashlib.sha256(content).hexdigest()[:40]}"'
    said = {"ETag": tag, "Accept-Ranges": "bytes"}
    if headers.get("If-Match", tag) != tag:
        return web.Response(status=412)
    asked = _RANGE.fullmatch(headers.get("Range", ""))
    if asked is None or headers.get("If-Range", tag) != tag:
        return web.Response(body=content, headers=said)
    first = int(asked[1])
    last = min(int(asked[2] or len(content)), len(content) - 1)
    if first > last:
        unsatisfied = {"Content-Range": f"bytes */{len(content)}"}
        return web.Response(status=416, headers=unsatisfied)
    said["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return web.Response(status=206, body=content[first : last + 1], headers=said)


def send_md5(artifact: Artifact) -> web.Response:
    """Answer with a file's MD5, as ``md5sum`` writes it."""
    return web.Response(text=f"{md5(artifact.content)}  {artifact.filename}")


def md5(content: bytes) -> str:
    """Return what hawkBit still tells about files."""
    return hashlib.md5(content).hexdigest()  # noqa: S324 - the format


def _links(links: Mapping[str, str]) -> Json:
    """Return links as HAL writes them."""
    return {"_links": {name: {"href": url} for name, url in links.items()}}
