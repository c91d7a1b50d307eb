"""Paths of the API by which a board says, signed, what it runs."""

from agent.endpoint import shapes
from agent.endpoint.openapi_parts import JSON_TYPE, of, operation
from agent.endpoint.state import Json

NONCE: Json = {
    "name": "nonce",
    "in": "query",
    "description": "Comes back in the statements: they are no older than it is.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{0,128}$"},
}


def describe_statements() -> Json:
    """Return the paths."""
    return {
        "/v1/provenance": {
            "get": operation(
                "What runs and where it came from, signed by the board.",
                {200: of(shapes.SignedStatements)},
                parameters=[NONCE],
            )
        },
        "/v1/watermark/challenge": {
            "post": operation(
                "Ask which copy of a marked model runs; a DSSE envelope signed by the "
                "key of its marks.",
                {200: of(shapes.SignedAnswers)},
                errors=(409,),
                content={JSON_TYPE: {"schema": {"type": "object"}}},
            )
        },
    }
