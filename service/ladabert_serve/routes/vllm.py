"""The body of vLLM's, SGLang's and Infinity's /classify: `input`, answered as vLLM does."""

import json
import time
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from ladabert_serve.errors import OUTCOMES, InvalidRequestError, RequestError
from ladabert_serve.http.call import Call
from ladabert_serve.http.dialect_schemas import VllmError, VllmRequest, VllmResponse
from ladabert_serve.http.inference_route import InferenceRoute, Services, find_model, read_json
from ladabert_serve.http.problem import error_headers
from ladabert_serve.http.schemas import parse_request, text_input
from ladabert_serve.models.model import Question
from ladabert_serve.models.scores import scores_in_order

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
    texts = body.input if isinstance(body.input, list) else [body.input]
    question = Question(
        [text_input(text, f"input[{index}]", settings.max_text_bytes) for index, text in enumerate(texts)],
        function_to_apply="none" if body.use_activation is False or body.raw_scores else None,
        truncate=body.truncate_prompt_tokens is not None,
        truncation_direction=body.truncation_side or "right",
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
