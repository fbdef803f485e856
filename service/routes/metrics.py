"""GET /metrics, for Prometheus."""

import logging

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from service.errors import NotReadyError
from service.inference_route import Services
from service.openapi import problem_responses
from service.problem import problem_response

router = APIRouter(tags=["metrics"])
logger = logging.getLogger(__name__)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses=problem_responses([NotReadyError]),
)
async def metrics(request: Request) -> Response:
    """Return every series, of all workers: as OpenMetrics when the Accept header prefers it."""
    services: Services = request.app.state.services
    try:
        body, content_type = await services.metrics.page(request.headers.get("accept", ""))
    except (MemoryError, OSError, RuntimeError) as error:
        logger.error("the metrics cannot be read: %r", error)
        return problem_response(NotReadyError("the metrics cannot be read now"), request.state.request_id)
    return Response(body, headers={"content-type": content_type})
