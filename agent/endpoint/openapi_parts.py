"""Parts of the OpenAPI document: operations, their answers, what these are made of."""

from collections.abc import Sequence
from http import HTTPStatus

from msgspec import Struct

from agent.endpoint import shapes
from agent.endpoint.problems import PROBLEM_TYPE
from agent.endpoint.state import Json

JSON_TYPE = "application/json"
REF = "#/components/schemas/{name}"
# Any request can be malformed, forbidden, too frequent, or meet a bug of ours; any part
# of the agent can be absent, because the settings do without it.
ANY = (400, 403, 404, 417, 429, 500)
WITH_BODY = (408, 413)  # it comes too slowly, or is too large


def operation(
    summary: str,
    success: dict[int, Json | None],
    *,
    errors: Sequence[int] = (),
    parameters: Sequence[Json] = (),
    content: Json | None = None,
) -> Json:
    """One method of one path: its body, and every answer it can have."""
    statuses = (*ANY, *errors, *(WITH_BODY if content is not None else ()))
    responses = {str(code): answer(code, found) for code, found in success.items()}
    for code in sorted(statuses):
        responses[str(code)] = answer(code, of(shapes.Problem, PROBLEM_TYPE))
    found: Json = {"summary": summary, "responses": responses}
    if parameters:
        found["parameters"] = list(parameters)
    if content is not None:
        found["requestBody"] = {"required": True, "content": content}
    return found


def answer(status: int, content: Json | None) -> Json:
    """One answer of an operation."""
    described: Json = {"description": HTTPStatus(status).phrase}
    if content is not None:
        described["content"] = content
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        described["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return described


def of(struct: type[Struct], media: str = JSON_TYPE) -> Json:
    """Content that is one struct as JSON."""
    return named(struct.__name__, media)


def named(name: str, media: str = JSON_TYPE) -> Json:
    """Content that a schema of this name describes."""
    return {media: {"schema": {"$ref": REF.format(name=name)}}}
