"""POST /v2/models/{name}/infer: the Open Inference Protocol, with Triton's binary tensors and statuses."""

import json

from starlette.responses import Response

from ladabert_serve.errors import (
    OUTCOMES,
    DeadlineExceededError,
    InvalidRequestError,
    QueueFullError,
    RateLimitedError,
    RequestError,
    TooLargeError,
    UnknownVersionError,
)
from ladabert_serve.http.body import check_not_compressed
from ladabert_serve.http.call import Call
from ladabert_serve.http.inference_route import InferenceRoute, Services
from ladabert_serve.http.oip_schemas import InferError, InferRequest, InferResponse
from ladabert_serve.http.problem import error_headers
from ladabert_serve.http.tensors import HEADER_LENGTH
from ladabert_serve.models.question import Question
from ladabert_serve.models.repository import Repository
from ladabert_serve.models.served import Served
from ladabert_serve.routes.oip_tensors import read_request, write_response

STATUSES: dict[type[RequestError], int] = {
    InvalidRequestError: 400,
    TooLargeError: 400,
    QueueFullError: 503,
    RateLimitedError: 503,
    DeadlineExceededError: 503,
}


async def infer(call: Call, services: Services) -> Response:
    """Classify the texts of a BYTES tensor; answer with the tensors that are asked for.

    With `Inference-Header-Content-Length` binary data follow so many bytes of JSON.
    """
    settings = services.settings

    # Validate.
    call.set_deadline(settings.default_timeout_ms / 1000)
    body = await call.read_body()
    check_not_compressed(call.headers)
    model = find(services.registry, call.path_parameters["name"], call.path_parameters.get("version"))
    call.model = model.name
    request, inputs = read_request(body, call.header(HEADER_LENGTH.lower().encode()), settings)
    parameters = request.parameters
    if parameters.timeout:
        call.set_deadline(parameters.timeout / 1_000_000)
    path = next(f"inputs[{index}]" for index, tensor in enumerate(request.inputs) if tensor.name == "text")
    question = Question(
        inputs,
        None,
        parameters.function_to_apply,
        parameters.truncate,
        parameters.truncation_direction,
        lambda index: f"{path}.data[{index}]",
    )

    # Admit, tokenise, queue, batch, run.
    predictions = await model.classify(question, call.deadline, call.admitted, call.flow)

    # Reply.
    reply, header_length = write_response(request, model, predictions)
    if header_length is None:
        return Response(reply, media_type="application/json")
    return Response(reply, headers={HEADER_LENGTH: str(header_length)}, media_type="application/octet-stream")


def find(registry: Repository, name: str, version: str | None) -> Served:
    """Return a model by name or alias; raises UnknownModelError, and UnknownVersionError unless it has that version."""
    model = registry.get(name)
    if version not in (None, model.artefact.version):
        raise UnknownVersionError(model.name, str(version), model.artefact.version)
    return model


def refuse(error: RequestError, _: str = "") -> Response:
    """Return an error as the protocol has it."""
    outcome = OUTCOMES[type(error)]
    # ASCII, because a detail may quote a caller's unpaired surrogate, which UTF-8 cannot hold.
    body = json.dumps({"error": error.detail})
    return Response(body, STATUSES.get(type(error), outcome.status), error_headers(error), "application/json")


ROUTES = tuple(
    InferenceRoute(
        path=f"{path}/infer",
        answer=infer,
        request_model=InferRequest,
        response_model=InferResponse,
        summary="Classify the texts of a tensor",
        refuse=refuse,
        statuses=STATUSES,
        error_model=InferError,
        binary=True,
    )
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
)
