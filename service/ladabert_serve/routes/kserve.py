"""POST /v1/models/{name}:predict and GET /v1/models…: KServe's first protocol, as its Hugging Face server answers."""

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ladabert_serve.errors import NotReadyError, UnknownModelError
from ladabert_serve.http.call import Call
from ladabert_serve.http.inference_route import InferenceRoute, Services, find_model, read_json
from ladabert_serve.http.kserve_schemas import PredictParameters, PredictRequest, PredictResponse
from ladabert_serve.http.oip_schemas import InferError, ModelNames, ModelReady
from ladabert_serve.http.openapi import problem_responses
from ladabert_serve.http.schemas import parse_request, text_input
from ladabert_serve.models.question import Prediction, Question
from ladabert_serve.models.scores import FunctionToApply, scores_in_order
from ladabert_serve.models.served import Served
from ladabert_serve.routes.oip import STATUSES, refuse
from ladabert_serve.routes.oip_models import names_response, ready_response

router = APIRouter(prefix="/v1", tags=["kserve"])


async def predict(call: Call, services: Services) -> bytes:
    """Classify instances: the index of each best label, or the score or logit of each label by its index."""
    settings = services.settings

    # Validate.
    name = call.path_parameters["name"]
    find_model(call, services.registry, name)
    payload = await read_json(call, settings)
    model = services.registry.get(name)
    body = parse_request(PredictRequest, payload, "instances", settings.max_inputs)
    inputs = [
        text_input(entry, f"instances[{index}]", settings.max_text_bytes) for index, entry in enumerate(body.instances)
    ]
    function: FunctionToApply | None = "none" if body.parameters.return_raw_logits else None

    # Admit, tokenise, queue, batch, run.
    question = Question(inputs, function_to_apply=function, paths="instances[{}]".format)
    predictions = await model.classify(question, call.deadline, call.admitted, call.flow)

    # Reply.
    return to_json({"predictions": [_encode(each, model, body.parameters) for each in predictions]})


def _encode(prediction: Prediction, model: Served, parameters: PredictParameters) -> int | dict[str, float]:
    labels = model.artefact.labels
    if parameters.return_probabilities or parameters.return_raw_logits:
        return {str(index): score for index, score in enumerate(scores_in_order(labels, prediction["scores"]))}
    return labels.index(prediction["label"])


ROUTE = InferenceRoute(
    path="/v1/models/{name}:predict",
    answer=predict,
    request_model=PredictRequest,
    response_model=PredictResponse,
    summary="Classify instances",
    refuse=refuse,
    statuses=STATUSES,
    error_model=InferError,
)


@router.get("/models", summary="List the served models", response_model=ModelNames)
async def list_models(request: Request) -> Response:
    """List every served model by name."""
    return names_response(request.app.state.services.registry)


@router.get(
    "/models/{name}",
    summary="Can a model answer requests?",
    response_model=ModelReady,
    responses=problem_responses([UnknownModelError, NotReadyError], model=InferError),
    openapi_extra={"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]},
)
async def show_model(request: Request) -> Response:
    """Answer 200 when the model can answer."""
    try:
        return ready_response(request.app.state.services.registry.get(request.path_params["name"]))
    except UnknownModelError as error:
        return refuse(error)
