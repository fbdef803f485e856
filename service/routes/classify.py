"""POST /classify: validate, admit, tokenise, queue, batch, run, reply."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.body import BodyReader, LingeringResponse, check_content_type, parse_json
from service.errors import (
    DeadlineExceededError,
    DrainingError,
    InvalidRequestError,
    ModelFailedError,
    NotJsonError,
    QueueFullError,
    RequestError,
    TooLargeError,
    UnknownModelError,
    UnsupportedMediaError,
)
from service.metrics import UNKNOWN_MODEL
from service.model import Model, Question, Reply
from service.openapi import problem_responses, request_body
from service.problem import problem_response
from service.registry import Registry
from service.schemas import ClassifyRequest, ClassifyResponse, TextPair, parse_classify_request
from service.settings import Settings
from service.tokenizer import TextInput
from service.tracking import Tracked, track

router = APIRouter()
ERRORS: tuple[type[RequestError], ...] = (
    NotJsonError,
    UnknownModelError,
    TooLargeError,
    UnsupportedMediaError,
    InvalidRequestError,
    QueueFullError,
    DrainingError,
    ModelFailedError,
    DeadlineExceededError,
)


@router.post(
    "/classify",
    summary="Classify texts or pairs of texts",
    response_model=ClassifyResponse,
    responses=problem_responses(ERRORS),
    openapi_extra=request_body("ClassifyRequest"),
    tags=["inference"],
)
async def classify(request: Request) -> Response:
    """Classify one input or a list of them; predictions come back in their order."""

    body = BodyReader(request)

    async def answer(tracked: Tracked) -> Response:
        return await _classify(request, body, tracked)

    def answer_error(error: RequestError) -> Response:
        response = problem_response(error, request.state.request_id)
        return response if body.complete else LingeringResponse(response)

    return await track(request.app.state.metrics, "/classify", answer, answer_error)


async def _classify(request: Request, reader: BodyReader, tracked: Tracked) -> Response:
    settings: Settings = request.app.state.settings
    registry: Registry = request.app.state.registry

    # Validate.
    check_content_type(request.headers)
    payload = parse_json(await reader.read(settings.max_body_bytes, settings.default_timeout_ms / 1000))
    tracked.model = _label(registry, payload)
    body = parse_classify_request(payload)
    model = registry.get(body.model)
    question = _question(body, settings)

    # Admit, tokenise, queue, batch, run.
    with watch_disconnect(request) as watch:
        reply = await model.classify(question, watch)

    # Reply.
    return _response(model, reply, tracked)


def _label(registry: Registry, payload: Any) -> str:
    """Return the served model that a request means, as its label in the metrics, before it is validated."""
    if not isinstance(payload, dict):
        return UNKNOWN_MODEL
    name = payload.get("model")
    if name is None:
        return registry.default
    return name if isinstance(name, str) and name in registry.models else UNKNOWN_MODEL


def _question(body: ClassifyRequest, settings: Settings) -> Question:
    """Return what is asked, within the limits; raises TooLargeError."""
    is_list = isinstance(body.inputs, list)
    entries = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    if len(entries) > settings.max_inputs:
        raise TooLargeError("inputs", len(entries), settings.max_inputs, "texts")
    inputs = [
        TextInput(entry.text, entry.text_pair) if isinstance(entry, TextPair) else TextInput(entry) for entry in entries
    ]
    for index, value in enumerate(inputs):
        for text in (value.text, value.text_pair or ""):
            size_bytes = len(text.encode())
            if size_bytes > settings.max_text_bytes:
                path = f"inputs[{index}]" if is_list else "inputs"
                raise TooLargeError(path, size_bytes, settings.max_text_bytes, "bytes")
    return Question(
        inputs=inputs,
        timeout_s=(body.timeout_ms or settings.default_timeout_ms) / 1000,
        top_k=body.top_k,
        function_to_apply=body.function_to_apply,
        truncate=body.truncate,
        truncation_direction=body.truncation_direction,
        paths="inputs[{}]".format if is_list else lambda _: "inputs",
    )


@contextlib.contextmanager
def watch_disconnect(request: Request) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Give a function that calls another one when the caller hangs up, until the context is left."""
    tasks: list[asyncio.Task[None]] = []

    async def wait(hung_up: Callable[[], None]) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        hung_up()

    def watch(hung_up: Callable[[], None]) -> None:
        tasks.append(asyncio.ensure_future(wait(hung_up)))

    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()


def _response(model: Model, reply: Reply, tracked: Tracked) -> Response:
    predictions = [
        {
            "label": prediction.scores[0].label,
            "score": prediction.scores[0].score,
            "scores": [{"label": entry.label, "score": entry.score} for entry in prediction.scores],
            "tokens": prediction.tokens,
            "truncated": prediction.truncated,
        }
        for prediction in reply.predictions
    ]
    body = {
        "model": model.name,
        "version": model.artefact.version,
        "predictions": predictions,
        "timing_ms": {
            "tokenize": round(reply.tokenize_s * 1000, 3),
            "queue": round(reply.queue_s * 1000, 3),
            "inference": round(reply.inference_s * 1000, 3),
            "total": round(tracked.elapsed_s * 1000, 3),
        },
    }
    return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")
