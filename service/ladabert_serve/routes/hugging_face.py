"""POST / and /models/{name}: the Hugging Face Inference API's text-classification."""

import json

from pydantic import RootModel
from pydantic_core import to_json
from starlette.responses import Response

from ladabert_serve.errors import OUTCOMES, InvalidRequestError, RequestError
from ladabert_serve.http.call import Call
from ladabert_serve.http.dialect_schemas import ErrorLine, HubParameters, HubRequest
from ladabert_serve.http.inference_route import InferenceRoute, Services, find_model, read_json
from ladabert_serve.http.problem import error_headers
from ladabert_serve.http.schemas import ScoredLabel, parse_request, text_input
from ladabert_serve.models.question import Question

STATUSES: dict[type[RequestError], int] = {InvalidRequestError: 400}


class Classifications(RootModel[list[list[ScoredLabel]]]):
    """Scores from high to low, one list for each input."""


async def classify(call: Call, services: Services) -> bytes:
    """Classify one input or a list of them."""
    settings = services.settings
    name = call.path_parameters.get("name")
    find_model(call, services.registry, name)
    payload = await read_json(call, settings)
    model = services.registry.get(name)
    body = parse_request(HubRequest, payload, "inputs", settings.max_inputs)
    parameters = body.parameters or HubParameters()
    inputs = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    question = Question(
        [text_input(entry, f"inputs[{index}]", settings.max_text_bytes) for index, entry in enumerate(inputs)],
        parameters.top_k,
        parameters.function_to_apply,
    )
    predictions = await model.classify(question, call.deadline, call.admitted, call.flow)
    return to_json([prediction["scores"] for prediction in predictions])


def refuse(error: RequestError, _: str = "") -> Response:
    """Return an error as one line."""
    status = STATUSES.get(type(error), OUTCOMES[type(error)].status)
    return Response(json.dumps({"error": error.detail}), status, error_headers(error), "application/json")


ROUTES = tuple(
    InferenceRoute(
        path=path,
        answer=classify,
        request_model=HubRequest,
        response_model=Classifications,
        summary="Classify as the Hugging Face Inference API does",
        refuse=refuse,
        statuses=STATUSES,
        error_model=ErrorLine,
    )
    for path in ("/", "/models/{name}")
)
