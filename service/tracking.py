"""Counts each request to an inference route exactly once, whatever becomes of it."""

import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response

from service.errors import OUTCOMES, RequestError
from service.metrics import UNKNOWN_MODEL, Metrics


class Tracked:
    """One request; the route sets `model` as soon as it knows which served model is meant."""

    def __init__(self) -> None:
        self.started_at = time.perf_counter()
        self.model = UNKNOWN_MODEL

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request's headers were read."""
        return time.perf_counter() - self.started_at


async def track(
    metrics: Metrics,
    route: str,
    answer: Callable[[Tracked], Awaitable[Response]],
    answer_error: Callable[[RequestError], Response],
) -> Response:
    """Return `answer`'s response, or `answer_error`'s for a RequestError, and count it."""
    tracked = Tracked()
    status = 500
    metrics.requests_in_progress.inc()
    try:
        response = await answer(tracked)
        status = response.status_code
        return response
    except RequestError as error:
        outcome = OUTCOMES[type(error)]
        status = outcome.status
        if outcome.rejected_reason is not None:
            metrics.rejected.labels(tracked.model, outcome.rejected_reason).inc()
        return answer_error(error)
    finally:
        metrics.requests_in_progress.dec()
        metrics.requests.labels(tracked.model, route, str(status)).inc()
        metrics.request_duration.labels(tracked.model, route).observe(tracked.elapsed_s)
