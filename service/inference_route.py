"""What every inference route shares: it is counted once, answered once, and never 500 for what a client sent.

Inference routes are called straight from ASGI; the framework's routing, request and response objects cost more
than a small model's run.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.call import HANG_UPS, Call
from service.errors import OUTCOMES, ModelFailedError, RequestError
from service.metrics import Metrics
from service.problem import problem_response, unexpected_problem
from service.registry import Registry
from service.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What an inference route works with, from start to stop of the application."""

    settings: Settings
    registry: Registry
    metrics: Metrics
    records: Sequence[Callable[[Call, int], None]]  # told of each call once it is answered, with its status


@dataclass(frozen=True, slots=True)
class InferenceRoute:
    """A path that takes POST: `answer` returns the JSON of a 200, or raises one of `errors`."""

    path: str
    answer: Callable[[Call, Services], Awaitable[bytes]]
    errors: tuple[type[RequestError], ...]
    request_model: type[BaseModel]
    response_model: type[BaseModel]
    summary: str
    tag: str = "inference"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the ASGI endpoint."""
        hang_ups = scope.get("extensions", {}).get(HANG_UPS)
        call = Call(scope["path"], dict(scope["headers"]), receive, send, hang_ups)
        await self.respond(call, scope["app"].services)

    async def respond(self, call: Call, services: Services) -> None:
        """Answer one call and count it."""
        services.metrics.began()
        status = 500
        reason: str | None = None
        body = b""
        problem: Response | None = None
        try:
            body = await self.answer(call, services)
            status = 200
        except RequestError as error:
            outcome = OUTCOMES[type(error)]
            status, reason = outcome.status, outcome.rejected_reason
            problem = problem_response(error, call.request_id)
            if isinstance(error, ModelFailedError):  # the answer says that the log has the cause
                logger.error("request %s failed on model %s: %s", call.request_id, call.model, error.cause)
            error.__traceback__ = None  # its frames know the call, which knows it: a cycle for the garbage collector
        except Exception:
            logger.exception("a bug in request %s", call.request_id)
            problem = unexpected_problem(call.request_id)
        finally:
            call.forget()
            services.metrics.ended(call.model, self.path, status, call.elapsed_s, reason)
            for record in services.records:
                record(call, status)
        if problem is None:
            await call.answer(body)
        else:
            await call.answer_problem(problem)
