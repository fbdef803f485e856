"""What every inference route shares: it is counted once, answered once, and never 500 for what a client sent."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ladabert_serve.errors import OUTCOMES, DrainingError, ModelFailedError, RequestError
from ladabert_serve.http.api_keys import KeyRing
from ladabert_serve.http.body import check_content_type, parse_json
from ladabert_serve.http.call import Call
from ladabert_serve.http.problem import problem_response, unexpected_problem
from ladabert_serve.http.schemas import Problem
from ladabert_serve.models.repository import Repository
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.settings import Settings

MAX_VALUES_PER_INPUT = 5  # commas, colons and brackets of {"text": …, "text_pair": …} in a list
MAX_VALUES_BESIDE = 64  # of the other fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What an inference route works with, from start to stop of the application."""

    settings: Settings
    registry: Repository
    metrics: Metrics
    records: Sequence[Callable[[Call, int], None]]  # called with each call and its status before it is answered
    keys: KeyRing | None = None  # None: no key is asked for


async def read_json(call: Call, settings: Settings) -> Any:
    """Return the request's JSON, whose lists hold at most `max_inputs` texts or pairs; raises RequestError."""
    call.set_deadline(settings.default_timeout_ms / 1000)
    data = await call.read_body()
    check_content_type(call.headers)
    return parse_json(data, MAX_VALUES_PER_INPUT * settings.max_inputs + MAX_VALUES_BESIDE)


def find_model(call: Call, registry: Repository, name: Any) -> None:
    """Set the call's model to the one that a request means, the default one for None, if there is such a model."""
    model = registry.find(name) if isinstance(name, str) else None
    if name is None:
        call.model = registry.default
    elif model is not None:
        call.model = model.name


@dataclass(frozen=True, slots=True)
class InferenceRoute:
    """A path that takes POST: `answer` returns a 200 or the JSON of one, or raises RequestError.

    The path may hold parameters, which the call has as `path_parameters`. A dialect with errors of its own gives
    `refuse`, which turns an error and the request's id into a response, the statuses that differ from the table's
    (each one of `Outcome.in_dialects`), and their model.
    """

    path: str
    answer: Callable[[Call, Services], Awaitable[bytes | Response]]
    request_model: type[BaseModel]
    response_model: type[BaseModel]
    summary: str
    refuse: Callable[[RequestError, str], Response] = problem_response
    statuses: Mapping[type[RequestError], int] = field(default_factory=dict)
    error_model: type[BaseModel] = Problem
    binary: bool = False  # whether binary data may follow the JSON, in both directions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and count it."""
        services: Services = scope["app"].state.services
        call = Call(scope, receive, send)
        services.metrics.began()
        status = 500
        reply: bytes | Response
        reason: str | None = None
        try:
            if services.keys is not None:  # before the body is read
                call.key = services.keys.authenticate(call.headers, "classify")
                services.keys.spend(call.key)
            reply = await self.answer(call, services)
            status = 200
        except asyncio.CancelledError:  # the server ends, and waits for nobody any more
            status, reason, reply = self._refuse(DrainingError(), call)
        except RequestError as error:
            status, reason, reply = self._refuse(error, call)
        except Exception:
            logger.exception("a bug in request %s", call.request_id)
            reply = unexpected_problem(call.request_id)
        finally:
            call.forget()
            services.metrics.ended(call.model, self.path, status, call.elapsed_s, reason)
            for record in services.records:
                try:
                    record(call, status)
                except Exception:
                    logger.exception("request %s could not be recorded", call.request_id)
        if isinstance(reply, bytes):
            await call.answer(reply)
        else:
            await call.send_response(reply)

    def _refuse(self, error: RequestError, call: Call) -> tuple[int, str | None, Response]:
        """Return status, reason of rejection if it is one, and the answer."""
        if isinstance(error, ModelFailedError):  # the answer says that the log has the cause
            logger.error("request %s failed on model %s: %s", call.request_id, call.model, error.cause)
        error.__traceback__ = None  # its frames know the call, which knows it: a cycle for the garbage collector
        response = (call.refuse or self.refuse)(error, call.request_id)
        return response.status_code, OUTCOMES[type(error)].rejected_reason, response
