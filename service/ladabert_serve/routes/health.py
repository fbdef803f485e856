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


def liveness_problem(registry: Repository) -> NotLiveError | None:
    """Return what only a restart of the process helps against, None while there is nothing."""
    stuck = sorted(name for name, model in registry.models.items() if not model.live)
    return NotLiveError(f"too many runs hang on {', '.join(stuck)}; restart the server") if stuck else None


def readiness_problem(registry: Repository) -> NotReadyError | DrainingError | None:
    """Return why the default model cannot answer, None when it can."""
    if registry.leaving:
        return DrainingError()
    try:
        state = registry.get(None).state
    except NotReadyError as error:
        return error
    if state == "ready":
        return None
    return NotReadyError(f"the default model {registry.default!r} is {state}; see the server's log")


@router.head("/live", include_in_schema=False)
@router.get("/live", summary="Is the process up?", response_model=Health, responses=problem_responses([NotLiveError]))
async def live(request: Request) -> Response:
    """Answer 200 while the event loop turns and no model needs a restart of the process."""
    problem = liveness_problem(request.app.state.services.registry)
    return JSONResponse({"status": "live"}) if problem is None else problem_response(problem, request.state.request_id)


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    summary="Can it answer requests?",
    response_model=Health,
    responses=problem_responses([NotReadyError, DrainingError]),
)
async def ready(request: Request) -> Response:
    """Answer 200 when the default model is loaded, all its runners are alive, and the server is not draining."""
    problem = readiness_problem(request.app.state.services.registry)
    return JSONResponse({"status": "ready"}) if problem is None else problem_response(problem, request.state.request_id)
