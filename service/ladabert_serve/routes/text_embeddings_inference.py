"""POST /predict: text-embeddings-inference's JSON, in and out."""

import json
from typing import Any, Literal

from pydantic import RootModel
from pydantic_core import to_json
from starlette.responses import Response

from ladabert_serve.errors import OUTCOMES, ModelFailedError, RequestError
from ladabert_serve.http.call import Call
from ladabert_serve.http.dialect_schemas import TeiError, TeiRequest
from ladabert_serve.http.inference_route import InferenceRoute, Services, find_model, read_json
from ladabert_serve.http.problem import error_headers
from ladabert_serve.http.schemas import ScoredLabel, TextPair, parse_request, text_input
from ladabert_serve.models.question import Question

STATUSES: dict[type[RequestError], int] = {ModelFailedError: 424}
TYPES = {424: "Backend", 429: "Overloaded", 503: "Unhealthy", 504: "Overloaded"}


class Predictions(RootModel[list[ScoredLabel] | list[list[ScoredLabel]]]):
    """Scores from high to low: one list for one input, a list of lists for a batch."""


async def predict(call: Call, services: Services) -> bytes:
    """Classify a text, a pair of texts (a list of two), or a batch (a list of lists of one or two texts)."""
    settings = services.settings
    find_model(call, services.registry, None)
    payload = await read_json(call, settings)
    body = parse_request(TeiRequest, payload, "inputs", settings.max_inputs)
    inputs = body.inputs
    is_batch = isinstance(inputs, list) and isinstance(inputs[0], list)
    batch: list[Any] = inputs if is_batch else [inputs]  # type: ignore[assignment]
    direction: Literal["left", "right"] = "left" if body.truncation_direction.lower() == "left" else "right"
    question = Question(
        [
            text_input(_one(entry), f"inputs[{index}]" if is_batch else "inputs", settings.max_text_bytes)
            for index, entry in enumerate(batch)
        ],
        function_to_apply="none" if body.raw_scores else None,
        truncate=body.truncate is not False,
        truncation_direction=direction,
        paths="inputs[{}]".format if is_batch else lambda _: "inputs",
    )
    predictions = await services.registry.get(None).classify(question, call.deadline, call.admitted, call.flow)
    answers = [prediction["scores"] for prediction in predictions]
    return to_json(answers if is_batch else answers[0])


def _one(entry: str | list[str]) -> str | TextPair:
    if isinstance(entry, str):
        return entry
    return entry[0] if len(entry) == 1 else TextPair(text=entry[0], text_pair=entry[1])


def refuse(error: RequestError, _: str = "") -> Response:
    """Return an error as text-embeddings-inference does."""
    status = STATUSES.get(type(error), OUTCOMES[type(error)].status)
    body = json.dumps({"error": error.detail, "error_type": TYPES.get(status, "Validation")})
    return Response(body, status, error_headers(error), "application/json")


ROUTE = InferenceRoute(
    path="/predict",
    answer=predict,
    request_model=TeiRequest,
    response_model=Predictions,
    summary="Classify as text-embeddings-inference does",
    refuse=refuse,
    statuses=STATUSES,
    error_model=TeiError,
)
