"""GET and HEAD /health/live and /health/ready, for orchestrators."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ladabert_serve.errors import DrainingError, NotLiveError, NotReadyError
from ladabert_serve.http.openapi import problem_responses
from ladabert_serve.http.problem import problem_response
from ladabert_serve.http.schemas import Health
from ladabert_serve.models.repository import Repository

router = APIRouter(prefix="/health", tags=["health"])


@router.head("/live", include_in_schema=False)
@router.get("/live", summary="Is the process up?", response_model=Health, responses=problem_responses([NotLiveError]))
async def live(request: Request) -> Response:
    """Answer 200 while the event loop turns and no model needs a restart of the process."""
    registry: Repository = request.app.state.services.registry
    stuck = sorted(name for name, model in registry.models.items() if not model.live)
    if stuck:
        error = NotLiveError(f"too many runs hang on {', '.join(stuck)}; restart the server")
        return problem_response(error, request.state.request_id)
    return JSONResponse({"status": "live"})


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    summary="Can it answer requests?",
    response_model=Health,
    responses=problem_responses([NotReadyError, DrainingError]),
)
async def ready(request: Request) -> Response:
    """Answer 200 when the default model is loaded, all its runners are alive, and the server is not draining."""
    registry: Repository = request.app.state.services.registry
    try:
        state = registry.get(None).state
    except NotReadyError as error:
        return problem_response(error, request.state.request_id)
    if state == "ready":
        return JSONResponse({"status": "ready"})
    failed = NotReadyError(f"the default model {registry.default!r} is {state}; see the server's log")
    return problem_response(DrainingError() if state == "draining" else failed, request.state.request_id)
