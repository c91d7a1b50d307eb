"""The shape of ``GET /v1/state``, as far as programs may rely on it."""

from agent.endpoint.openapi_parts import REF, named
from agent.endpoint.state import Json

# What a program may rely on to tell whose copy runs; the rest is for people to read.
PIPELINE: Json = {
    "type": "object",
    "required": ["copy", "sealed"],
    "properties": {
        "copy": {
            "enum": ["", "marked", "own"],
            "description": "Whose copy runs: `own` answered with this board's codeword "
            "at activation, `marked` was not asked; empty where copies do not differ.",
        },
        "sealed": {
            "type": "boolean",
            "description": "The model lies encrypted on the disk.",
        },
    },
}
STATE: Json = {
    "type": "object",
    "required": ["version", "engines", "ready", "update", "pipelines"],
    "properties": {
        "version": {"type": "string"},
        "engines": {"type": "object", "additionalProperties": {"type": "string"}},
        "ready": {"type": "boolean"},
        "audit": named("LogView"),
        "update": {
            "type": "object",
            "required": ["phase", "orchestrator", "decisions", "progress", "next_look"],
            "properties": {
                "phase": {"type": "string"},
                "orchestrator": {"type": "string"},
                "decisions": {
                    "type": "array",
                    "items": {"$ref": REF.format(name="Decision")},
                },
                "progress": {
                    "anyOf": [
                        {"type": "null"},
                        {"$ref": REF.format(name="Progress")},
                    ]
                },
                "next_look": {"type": "number"},
                "ddi": {"type": ["object", "null"]},
            },
        },
        "pipelines": {"type": "object", "additionalProperties": PIPELINE},
    },
}
