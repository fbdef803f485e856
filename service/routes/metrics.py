"""GET /metrics, for Prometheus."""

import os
from pathlib import Path

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from service.inference_route import Services
from service.metrics import MULTIPROCESS_VARIABLE, render, take_snapshot, take_snapshot_of_workers

router = APIRouter(tags=["metrics"])


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return every series, of all workers: as OpenMetrics when the Accept header asks for it."""
    services: Services = request.app.state.services
    folder = os.environ.get(MULTIPROCESS_VARIABLE)
    if folder is None:
        snapshot = take_snapshot(services.metrics)
    else:
        snapshot = await run_in_threadpool(take_snapshot_of_workers, Path(folder))
    body, content_type = await run_in_threadpool(render, snapshot, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})
