"""Paths and structs of the API about protection and proof, put together."""

from agent.core.log_view import LogView
from agent.endpoint import shapes
from agent.endpoint.audit import describe_receipts
from agent.endpoint.openapi_meter import METER_STRUCTS, describe_metering
from agent.endpoint.openapi_statements import describe_statements
from agent.endpoint.state import Json

PROOF_STRUCTS: tuple[type, ...] = (
    LogView,
    shapes.SignedStatements,
    shapes.SignedAnswers,
    *METER_STRUCTS,
    shapes.LogRecord,
    shapes.LogRecords,
    shapes.KeptList,
    shapes.LogGrowth,
)


def describe_proofs() -> Json:
    """Return the paths."""
    return {**describe_statements(), **describe_metering(), **describe_receipts()}
