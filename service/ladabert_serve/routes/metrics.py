"""GET /metrics, for Prometheus."""

import logging

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ladabert_serve.errors import NotReadyError
from ladabert_serve.http.inference_route import Services
from ladabert_serve.http.openapi import problem_responses
from ladabert_serve.http.problem import problem_response

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
