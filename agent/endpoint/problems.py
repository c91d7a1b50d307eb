"""Errors as ``application/problem+json`` (RFC 9457), with a reason and what to do.

The rules this module keeps:
 * Every answer that is no success has this form, those of aiohttp's router included.
 * Nothing of the request stands in it, and no trace of ours.
"""

from http import HTTPStatus

from aiohttp import web

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.endpoint.state import Json, render_json
from agent.errors import AgentError, BundleRefusedError, RequestRefusedError

PROBLEM_TYPE = "application/problem+json"
STATUS = {
    Reason.NOT_ORCHESTRATOR: 409,
    Reason.BUSY: 409,
    Reason.REPLAYED: 409,
    Reason.NO_PREVIOUS: 409,
    Reason.REVOKED: 409,
    Reason.NO_MODEL: 409,
    Reason.UNWATCHED: 409,
    Reason.WATCHING_OFF: 409,
    Reason.UNKNOWN_PIPELINE: 404,
    Reason.OTHER_BOARD: 409,
    Reason.WATERMARK: 409,
    Reason.ROLE: 403,
    Reason.CERTIFICATE: 403,
    Reason.TOO_SLOW: 408,
    Reason.TOO_LARGE: 413,
    Reason.RATE_LIMITED: 429,
    Reason.QUOTA: 507,
    Reason.DISK_FULL: 507,
}


class AbsentError(AgentError):
    """What the path names is not here: answered with 404."""


class ForeignError(RequestRefusedError):
    """Another site's page made a browser send this: answered with 403."""

    def __init__(self) -> None:
        super().__init__(
            "sent from another site's page",
            reason=Reason.REQUEST,
            todo="Open the board's own page, or use the command line.",
        )


class MisdirectedError(RequestRefusedError):
    """The board was reached by a name that is not its own: answered with 421."""

    def __init__(self) -> None:
        super().__init__(
            "this board does not go by that name",
            reason=Reason.REQUEST,
            todo="Open it by its address, as localhost, or by its own host name.",
        )


# Errors that say more about their status than their reason does.
KINDS: dict[type[AgentError], int] = {ForeignError: 403, MisdirectedError: 421}


def absent(what: str, todo: str = "") -> AbsentError:
    """Return the error for something that is not here."""
    return AbsentError(what, reason=Reason.REQUEST, todo=todo)


def status_of(err: AgentError) -> int:
    """Return the status for an error: by its reason, else by who has to act."""
    if isinstance(err, AbsentError):
        return 404
    if type(err) in KINDS:
        return KINDS[type(err)]
    known = STATUS.get(Reason(err.reason))
    if known is not None:
        return known
    asked_wrong = isinstance(err, RequestRefusedError | BundleRefusedError)
    return 400 if asked_wrong else 500


def describe_problem(
    status: int, reason: str, detail: str, todo: str = "", **more: object
) -> Json:
    """Return the body of an answer that is no success."""
    explained = EXPLANATIONS.get(Reason(reason))
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "reason": reason,
        "detail": detail,
        "todo": todo or (explained.todo if explained else ""),
        **more,
    }


def answer_problem(problem: Json) -> web.Response:
    """Return a problem as an answer that nobody keeps."""
    return web.Response(
        body=render_json(problem),
        status=int(str(problem["status"])),
        content_type=PROBLEM_TYPE,
        headers={"Cache-Control": "no-store"},
    )


def answer_error(err: AgentError, phase: str) -> web.Response:
    """Return an error as an answer; who is told to wait is told for which phase."""
    more = {"phase": phase} if err.reason == Reason.BUSY else {}
    return answer_problem(
        describe_problem(status_of(err), err.reason, str(err), err.todo, **more)
    )


def answer_http(err: web.HTTPException) -> web.Response:
    """Return what aiohttp's router refused: no such path, no such method."""
    title = HTTPStatus(err.status).phrase
    answer = answer_problem(describe_problem(err.status, Reason.REQUEST, title))
    if "Allow" in err.headers:
        answer.headers["Allow"] = err.headers["Allow"]
    return answer


def answer_limited(wait_s: float) -> web.Response:
    """Tell a client that asks too often when to ask again."""
    seconds = int(wait_s) + 1
    answer = answer_problem(
        describe_problem(429, Reason.RATE_LIMITED, f"ask again in {seconds} s")
    )
    answer.headers["Retry-After"] = str(seconds)
    return answer


def answer_bug() -> web.Response:
    """Say that something went wrong here, and nothing more."""
    return answer_problem(
        describe_problem(500, Reason.INTERNAL, "something unexpected happened")
    )
