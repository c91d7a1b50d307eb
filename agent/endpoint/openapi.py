"""The API as an OpenAPI 3.1 document, for clients, people and tests.

The rules this module keeps:
 * What crosses the wire as a struct is described by that struct; only paths and words
   are written here. A test holds the paths equal to the routes.
 * Every status that an answer can have is named.

>>> describe_api()["openapi"]
'3.1.0'
"""

from functools import cache

import msgspec

from agent import __version__
from agent.core.targets import GroupFile
from agent.core.updates import Decision
from agent.endpoint import shapes
from agent.endpoint.bodies import MAX_NUMBER, MAX_PIECE_BYTES
from agent.endpoint.openapi_parts import JSON_TYPE, REF, named, of, operation
from agent.endpoint.openapi_proofs import PROOF_STRUCTS, describe_proofs
from agent.endpoint.openapi_state import STATE
from agent.endpoint.state import Json
from agent.endpoint.uploads import PATH_PATTERN

PEM_TYPE = "text/plain"
TEXT: Json = {"schema": {"type": "string"}}
STRUCTS: tuple[type, ...] = (
    GroupFile,
    Decision,
    shapes.RollbackOrder,
    shapes.TakenGeneration,
    shapes.CurrentPhase,
    shapes.RolledBack,
    shapes.CommissionOrder,
    shapes.Commissioned,
    shapes.UploadOffset,
    shapes.UploadState,
    shapes.UpdateLog,
    shapes.EventLog,
    shapes.OneUpdate,
    shapes.Certificate,
    shapes.CertificateAndRequest,
    *PROOF_STRUCTS,
    shapes.Problem,
)
DIGEST: Json = {
    "name": "sha256",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
NUMBER: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
}
PATH: Json = {
    "name": "path",
    "in": "query",
    "required": True,
    "description": "Where the file stands in the repository slice.",
    "schema": {"type": "string", "pattern": PATH_PATTERN},
}
AFTER: Json = {
    "name": "after",
    "in": "query",
    "description": "The number of the newest event that is known already.",
    "schema": {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER},
}
RANGE: Json = {
    "name": "Content-Range",
    "in": "header",
    "description": f"Which bytes; {MAX_PIECE_BYTES} at most. Without it: all.",
    "schema": {"type": "string", "pattern": "^bytes [0-9]+-[0-9]+/[0-9]+$"},
}


@cache
def describe_api() -> Json:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tinyward",
            "version": __version__,
            "description": "One board: its state, its models and their updates.",
        },
        "paths": {
            **_reading(),
            **_looking(),
            **_wanting(),
            **_updating(),
            **_sending(),
            **_identity(),
            **describe_proofs(),
        },
        "components": {"schemas": _schemas()},
    }


def _schemas() -> Json:
    """All structs, by name, and what no struct says."""
    _, found = msgspec.json.schema_components(STRUCTS, ref_template=REF)
    return {**found, "State": STATE}


def _reading() -> Json:
    """Paths that show the whole."""
    metrics: Json = {"text/plain": TEXT, "application/openmetrics-text": TEXT}
    return {
        "/metrics": {"get": operation("Metrics for Prometheus.", {200: metrics})},
        "/v1/openapi.json": {
            "get": operation(
                "This document.", {200: {JSON_TYPE: {"schema": {"type": "object"}}}}
            )
        },
        "/v1/state": {
            "get": operation(
                "Everything: pipelines, models, updates.", {200: named("State")}
            )
        },
    }


def _looking() -> Json:
    """Paths for who looks at the board, and goes on looking."""
    stream: Json = {"text/event-stream": TEXT}
    return {
        "/": {"get": operation("The board's page.", {200: {"text/html": TEXT}})},
        "/v1/live": {
            "get": operation(
                "The state once a second and events as they come.",
                {200: stream, 503: None},
                parameters=[AFTER],
            )
        },
        "/v1/events": {
            "get": operation(
                "What was logged, oldest first.",
                {200: of(shapes.EventLog)},
                parameters=[AFTER],
            )
        },
    }


def _wanting() -> Json:
    """Paths that say what should run."""
    return {
        "/v1/desired": {
            "get": operation("What was pushed last.", {200: of(GroupFile)}),
            "put": operation(
                "Say what should run.",
                {200: of(shapes.TakenGeneration)},
                errors=(409, 507),
                content=of(GroupFile),
            ),
            "delete": operation(
                "Forget what was pushed, and its generation.",
                {204: None},
                errors=(409, 507),
            ),
        },
    }


def _updating() -> Json:
    """Paths that show how updates go, and change that."""
    return {
        "/v1/updates": {
            "get": operation("Updates now and before.", {200: of(shapes.UpdateLog)}),
            "post": operation(
                "Look for updates now.",
                {202: of(shapes.CurrentPhase)},
                errors=(409, 507),
            ),
        },
        "/v1/updates/{id}": {
            "get": operation(
                "One update.", {200: of(shapes.OneUpdate)}, parameters=[NUMBER]
            )
        },
        "/v1/rollback": {
            "post": operation(
                "Go back to the previous model.",
                {202: of(shapes.RolledBack)},
                errors=(409, 507),
                content=of(shapes.RollbackOrder),
            )
        },
        "/v1/commission": {
            "post": operation(
                "Forget the board's own baseline of a model's input; collect another.",
                {200: of(shapes.Commissioned)},
                errors=(409, 507),
                content=of(shapes.CommissionOrder),
            )
        },
        "/v1/quarantine/{sha256}": {
            "delete": operation(
                "Let a bundle that failed be tried again.",
                {204: None},
                errors=(409, 507),
                parameters=[DIGEST],
            )
        },
    }


def _sending() -> Json:
    """Paths by which the files of a repository slice come in."""
    octets: Json = {"application/octet-stream": {}}
    return {
        "/v1/uploads/{sha256}": {
            "get": operation(
                "How much of a file is here.",
                {200: of(shapes.UploadOffset)},
                parameters=[DIGEST],
            ),
            "put": operation(
                "Send a file, or a piece of it.",
                {200: of(shapes.UploadState)},
                errors=(409, 507),
                parameters=[DIGEST, PATH, RANGE],
                content=octets,
            ),
        },
        "/v1/uploads": {
            "delete": operation(
                "Remove all that was sent.", {204: None}, errors=(409, 507)
            )
        },
    }


def _identity() -> Json:
    """Paths about the board's own certificate."""
    return {
        "/v1/identity": {
            "get": operation(
                "The board's certificate, and a request for the next.",
                {200: of(shapes.CertificateAndRequest)},
            )
        },
        "/v1/identity/certificate": {
            "put": operation(
                "Install the next certificate.",
                {200: of(shapes.Certificate)},
                errors=(507,),
                content={PEM_TYPE: TEXT},
            )
        },
    }
