"""Paths of the API about what is paid for."""

from agent.core.meter_status import MeterStatus
from agent.endpoint import shapes
from agent.endpoint.bodies import MAX_NUMBER
from agent.endpoint.openapi_parts import of, operation
from agent.endpoint.state import Json

METER_STRUCTS = (
    MeterStatus,
    shapes.VoucherText,
    shapes.Redeemed,
    shapes.UsageReport,
)
SINCE: Json = {
    "name": "since",
    "in": "query",
    "description": "Unix seconds: hours before it are left out.",
    "schema": {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER},
}


def describe_metering() -> Json:
    """Return the paths."""
    return {
        "/v1/meter": {
            "get": operation("What is paid for and left.", {200: of(MeterStatus)})
        },
        "/v1/meter/usage": {
            "get": operation(
                "Answers by model and hour, signed by the board.",
                {200: of(shapes.UsageReport)},
                errors=(507,),
                parameters=[SINCE],
            )
        },
        "/v1/meter/vouchers": {
            "post": operation(
                "Redeem vouchers.",
                {200: of(shapes.Redeemed)},
                errors=(409, 507),
                content=of(shapes.VoucherText),
            )
        },
    }
