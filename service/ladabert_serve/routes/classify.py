"""POST /classify: validate, admit, tokenise, queue, batch, run, reply."""

from pydantic_core import to_json

from ladabert_serve.http.call import Call
from ladabert_serve.http.inference_route import InferenceRoute, Services, find_model, read_json
from ladabert_serve.http.schemas import ClassifyRequest, ClassifyResponse, parse_request, text_input
from ladabert_serve.models.question import Prediction, Question
from ladabert_serve.models.served import Served
from ladabert_serve.routes import ort_server, vllm
from ladabert_serve.settings import Settings

# The other dialects of this path, by the key that holds the texts.
DIALECTS = {"input": (vllm.answer, vllm.refuse), "text": (ort_server.answer, ort_server.refuse)}


async def classify(call: Call, services: Services) -> bytes:
    """Classify one input or a list of them; predictions come back in their order.

    A body with `input` in the place of `inputs` is answered as by vLLM, one with `text` as by ort-server.
    """
    settings = services.settings

    # Validate.
    payload = await read_json(call, settings)
    if isinstance(payload, dict):
        for key, (answer, refuse) in DIALECTS.items():
            if key in payload and "inputs" not in payload:
                call.refuse = refuse
                return await answer(call, services, payload)
        find_model(call, services.registry, payload.get("model"))
    body = parse_request(ClassifyRequest, payload, "inputs", settings.max_inputs)
    if body.timeout_ms is not None:
        call.set_deadline(body.timeout_ms / 1000)
    model = services.registry.get(body.model)
    question = _question(body, settings)

    # Admit, tokenise, queue, batch, run.
    predictions = await model.classify(question, call.deadline, call.admitted, call.flow)

    # Reply.
    return _reply(model, predictions, call)


ROUTE = InferenceRoute(
    path="/classify",
    answer=classify,
    request_model=ClassifyRequest,
    response_model=ClassifyResponse,
    summary="Classify texts or pairs of texts",
)


def _question(body: ClassifyRequest, settings: Settings) -> Question:
    """Return what is asked, within the limits; raises TooLargeError."""
    limit_bytes = settings.max_text_bytes
    if not isinstance(body.inputs, list):
        inputs = [text_input(body.inputs, "inputs", limit_bytes)]
        paths = _path_of_one
    else:
        inputs = [text_input(entry, f"inputs[{index}]", limit_bytes) for index, entry in enumerate(body.inputs)]
        paths = "inputs[{}]".format
    return Question(
        inputs,
        body.top_k,
        body.function_to_apply,
        body.truncate,
        body.truncation_direction,
        paths,
        route=body.route,
    )


def _path_of_one(_: int) -> str:
    return "inputs"


def _reply(model: Served, predictions: list[Prediction], call: Call) -> bytes:
    spent_s = {"tokenize": 0.0, "queue": 0.0, "inference": 0.0}
    for name, begin, end in call.steps():
        spent_s[name] += end - begin
    spent_s["total"] = call.elapsed_s
    return to_json(
        {
            "model": model.name,
            "version": model.artefact.version,
            "predictions": predictions,
            "timing_ms": {name: int(seconds * 1e6) / 1000 for name, seconds in spent_s.items()},
        }
    )
