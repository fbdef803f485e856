"""The body of ort-server's /classify: `text`."""

import json
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from ladabert_serve.errors import OUTCOMES, InvalidRequestError, RequestError
from ladabert_serve.http.call import Call
from ladabert_serve.http.dialect_schemas import OrtServerRequest
from ladabert_serve.http.inference_route import Services, find_model
from ladabert_serve.http.problem import error_headers
from ladabert_serve.http.schemas import parse_request, text_input
from ladabert_serve.models.question import Question


async def answer(call: Call, services: Services, payload: Any) -> bytes:
    """Return the answer of the default model to a decoded body; raises RequestError."""
    find_model(call, services.registry, None)
    body = parse_request(OrtServerRequest, payload)
    question = Question(
        [text_input(body.text, "text", services.settings.max_text_bytes)], body.top_k or None, paths=lambda _: "text"
    )
    model = services.registry.get(None)
    (prediction,) = await model.classify(question, call.deadline, call.admitted, call.flow)
    return to_json({"labels": {each["label"]: each["score"] for each in prediction["scores"]}})


def refuse(error: RequestError, _: str = "") -> Response:
    """Return an error as one line; what does not fit is a 400."""
    status = 400 if isinstance(error, InvalidRequestError) else OUTCOMES[type(error)].status
    return Response(json.dumps({"error": error.detail}), status, error_headers(error), "application/json")
