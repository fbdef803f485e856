"""GET /metrics, for Prometheus."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from service.metrics import render

router = APIRouter(tags=["metrics"])


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Return every series, of all workers: as OpenMetrics when the Accept header asks for it."""
    body, content_type = render(request.app.state.metrics, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})
