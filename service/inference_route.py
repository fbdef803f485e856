"""What every inference route shares: it is counted once, answered once, and never 500 for what a client sent.

Inference routes are called straight from ASGI; the framework's routing, request and response objects cost more
than a small model's run.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from service.access_log import log_call
from service.call import Call
from service.errors import OUTCOMES, RequestError
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
        """Be the ASGI endpoint: answer one call and count it."""
        services: Services = scope["app"].state.services
        call = Call(scope, receive, send)
        services.metrics.began()
        status = 500
        error: RequestError | None = None
        body = b""
        try:
            body = await self.answer(call, services)
            status = 200
        except RequestError as refusal:
            error = refusal
            status = OUTCOMES[type(refusal)].status
        except Exception:
            logger.exception("a bug in request %s", call.request_id)
        finally:
            call.unwatch()
            reason = None if error is None else OUTCOMES[type(error)].rejected_reason
            services.metrics.ended(call.model, self.path, status, call.elapsed_s, reason)
            if services.settings.access_log:
                log_call(call, status, texts=services.settings.log_texts)
        if status == 200:
            await call.answer(body)
        elif error is not None:
            await call.answer_problem(problem_response(error, call.request_id))
        else:
            await call.answer_problem(unexpected_problem(call.request_id))
