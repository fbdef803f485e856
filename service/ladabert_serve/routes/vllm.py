"""The body of vLLM's, SGLang's and Infinity's /classify: `input`, answered as vLLM does."""

import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, cast

from pydantic_core import to_json
from starlette.responses import Response

from ladabert_serve.errors import OUTCOMES, FieldError, InvalidRequestError, RequestError
from ladabert_serve.http.call import Call
from ladabert_serve.http.dialect_schemas import VllmError, VllmRequest, VllmResponse
from ladabert_serve.http.inference_route import InferenceRoute, Services, find_model, read_json
from ladabert_serve.http.problem import error_headers
from ladabert_serve.http.schemas import parse_request, text_input
from ladabert_serve.models.question import Question
from ladabert_serve.models.scores import scores_in_order
from ladabert_serve.models.served import Served
from ladabert_serve.models.tokenizer import TextInput, TokenInput
from ladabert_serve.settings import Settings

STATUSES: dict[type[RequestError], int] = {InvalidRequestError: 400}
TYPES = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}


async def classify(call: Call, services: Services) -> bytes:
    """Classify one text or a list of them, as vLLM does."""
    return await answer(call, services, await read_json(call, services.settings))


async def answer(call: Call, services: Services, payload: Any) -> bytes:
    """Return the answer to a decoded body; raises RequestError."""
    settings = services.settings
    if isinstance(payload, dict):
        find_model(call, services.registry, payload.get("model"))
    body = parse_request(VllmRequest, payload, "input", settings.max_inputs)
    model = services.registry.get(body.model)
    call.model = model.name
    length = body.truncate_prompt_tokens
    question = Question(
        _inputs(body, model, settings),
        function_to_apply="none" if body.use_activation is False or body.raw_scores else None,
        truncate=length is not None,
        truncation_direction=body.truncation_side or "right",
        max_tokens=_length(length, model, body.add_special_tokens),
        add_special_tokens=body.add_special_tokens,
        paths="input[{}]".format,
    )
    predictions = await model.classify(question, call.deadline, call.admitted, call.flow)
    labels = model.artefact.labels
    tokens = sum(prediction["tokens"] for prediction in predictions)
    return to_json(
        {
            "id": f"classify-{call.request_id}",
            "object": "list",
            "created": int(time.time()),
            "model": model.name,
            "data": [
                {
                    "index": index,
                    "label": prediction["label"],
                    "probs": scores_in_order(labels, prediction["scores"]),
                    "num_classes": len(labels),
                }
                for index, prediction in enumerate(predictions)
            ],
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
    )


def _inputs(body: VllmRequest, model: Served, settings: Settings) -> list[TextInput | TokenInput]:
    """Return texts or token ids; raises TooLargeError, and InvalidRequestError for a token that the model lacks."""
    listed = body.input if isinstance(body.input, list) and not isinstance(body.input[0], int) else [body.input]
    inputs: list[TextInput | TokenInput] = []
    for index, each in enumerate(listed):
        if isinstance(each, str):
            inputs.append(text_input(each, f"input[{index}]", settings.max_text_bytes))
            continue
        ids = cast(Sequence[int], each)
        if max(ids) >= model.tokenizer.vocabulary:
            detail = f"token id {max(ids)} is out of the vocabulary of {model.tokenizer.vocabulary} tokens"
            raise InvalidRequestError([FieldError(f"input[{index}]", detail)])
        inputs.append(TokenInput(ids))
    return inputs


def _length(tokens: int | None, model: Served, add_special_tokens: bool) -> int | None:
    """Return the tokens at which an input is cut, None for the model's length; raises InvalidRequestError."""
    if tokens in (None, -1):
        return None
    fewest = 1 + (model.tokenizer.special_tokens(pair=False) if add_special_tokens else 0)
    if not fewest <= tokens <= model.artefact.max_length:
        detail = f"must be -1, or from {fewest} to {model.artefact.max_length}, what model {model.name!r} reads"
        raise InvalidRequestError([FieldError("truncate_prompt_tokens", detail)])
    return tokens


def refuse(error: RequestError, _: str = "") -> Response:
    """Return an error as OpenAI's clients read it."""
    status = STATUSES.get(type(error), OUTCOMES[type(error)].status)
    kind = TYPES.get(status) or (HTTPStatus(status).phrase if status != 499 else "ClientClosedRequest").replace(" ", "")
    body = json.dumps({"error": {"message": error.detail, "type": kind, "param": None, "code": status}})
    return Response(body, status, error_headers(error), "application/json")


ROUTE = InferenceRoute(
    path="/v1/classify",
    answer=classify,
    request_model=VllmRequest,
    response_model=VllmResponse,
    summary="Classify texts as vLLM does",
    refuse=refuse,
    statuses=STATUSES,
    error_model=VllmError,
)
