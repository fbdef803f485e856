"""Request and response bodies of this server's own routes."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from ladabert_serve.errors import FieldError, InvalidRequestError, TooLargeError
from ladabert_serve.models.scores import FunctionToApply, ProblemType
from ladabert_serve.models.tokenizer import TextInput, TruncationDirection

RequestT = TypeVar("RequestT", bound=BaseModel)

MAX_TIMEOUT_MS = 3600000
MAX_REPORTED_ERRORS = 20
MESSAGES = {"extra_forbidden": "no such field", "model_type": "must be an object"}  # instead of pydantic's


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _check_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = "is not valid Unicode: an unpaired surrogate"
        raise PydanticCustomError("string_unicode", message) from error
    return text


Text = Annotated[str, AfterValidator(_check_unicode)]


def _whole(value: Any) -> Any:
    """Return 5 for 5.0: JSON and its schemas know one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Natural = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
TimeoutMs = Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS), BeforeValidator(_whole)]
TimeoutUs = Annotated[int, Field(ge=0, le=MAX_TIMEOUT_MS * 1000), BeforeValidator(_whole)]


class TextPair(_Body):
    """A text, and a second one where the model compares two."""

    text: Text
    text_pair: Text | None = None


def _shape_of_one(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<object>" if isinstance(value, dict | TextPair) else None


def _shape_of_inputs(value: Any) -> str | None:
    return "<list>" if isinstance(value, list) else _shape_of_one(value)


# The tags pick one arm of a union, so that an error speaks of what was sent and not of every arm.
OneInput = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[TextPair, Tag("<object>")],
    Discriminator(
        _shape_of_one,
        custom_error_type="input_shape",
        custom_error_message="must be a text or an object with text (and text_pair)",
    ),
]
Inputs = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[TextPair, Tag("<object>")]
    | Annotated[list[OneInput], Field(min_length=1, fail_fast=True), Tag("<list>")],
    Discriminator(
        _shape_of_inputs,
        custom_error_type="inputs_shape",
        custom_error_message="must be a text, an object with text (and text_pair), or a list of these",
    ),
]
UNION_TAGS = frozenset({"<text>", "<object>", "<list>"})


class ClassifyRequest(_Body):
    """One input or a list of them, and how to classify them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": "a gripping and beautifully shot film"},
                {"inputs": ["a gripping film", "dull from start to end"], "top_k": 1},
                {"inputs": {"text": "He is at home.", "text_pair": "He has not left the house."}},
            ]
        }
    )

    inputs: Inputs = Field(description="What to classify.")
    model: Text | None = Field(default=None, description="Name or alias of the model; unset: the default one.")
    top_k: Count | None = Field(default=None, description="How many labels to return, best first; unset: all.")
    function_to_apply: FunctionToApply | None = Field(
        default=None,
        description="From logits to scores; unset: softmax, of a multi-label model sigmoid, of a regression none.",
    )
    truncate: bool = Field(default=True, description="Cut a text over the model's length; false: answer 422.")
    truncation_direction: TruncationDirection = Field(default="right", description="The side that is cut off.")
    timeout_ms: TimeoutMs | None = Field(default=None, description="Deadline in milliseconds; unset: the server's.")
    route: bool = Field(
        default=False, description="Whether a cascade says which stages it asked, and how sure each was."
    )


class ScoredLabel(BaseModel):
    """A label and its score."""

    label: str
    score: float


class PredictionBody(BaseModel):
    """The prediction for one input: the best label, and all that were asked for from high to low."""

    label: str
    score: float
    scores: list[ScoredLabel]
    tokens: int = Field(description="Tokens that the model read, special ones included.")
    truncated: bool = Field(description="Whether the input was longer than the model reads.")
    stage: str | None = Field(default=None, description="Of a cascade: the model that answered.")
    degraded: bool | None = Field(
        default=None, description="Of a cascade: whether it answered unsure, because the next stage was overloaded."
    )
    route: list[str] | None = Field(
        default=None,
        description="Of a cascade, where asked for: each stage's name with `ok`, with `overloaded`, or with `unsure` "
        "and how sure it was.",
        examples=[["sst2-latency:unsure:0.71", "sst2-teacher:ok"]],
    )


class Timing(BaseModel):
    """Milliseconds of each step; total is from the request's headers to the answer."""

    tokenize: float
    queue: float
    inference: float
    total: float


class ClassifyResponse(BaseModel):
    """Predictions in the order of the inputs."""

    model: str
    version: str
    predictions: list[PredictionBody]
    timing_ms: Timing


ModelState = Literal["ready", "draining", "failed"]


class ModelSummary(BaseModel):
    """One served model."""

    name: str
    aliases: list[str] = Field(description="Other names that requests may use; answers have the name.")
    version: str
    default: bool
    state: ModelState
    task: Literal["single", "pair"]
    problem_type: ProblemType
    labels: list[str]
    max_length: int
    precision: Literal["fp32", "int8", "fp16"] = Field(description="Of a cascade: the first stage's, as is all below.")
    provider: Literal["cpu", "cuda", "openvino"]
    stages: list[str] = Field(description="The models that a cascade asks, one after the other; else none.")


class ModelList(BaseModel):
    """Every served model, by name."""

    default: str
    models: list[ModelSummary]


class ModelDetail(ModelSummary):
    """One served model with its live state and its whole manifest."""

    file: str
    runners: int
    queue_depth: int = Field(description="Requests that wait for a runner.")
    requests_in_progress: int = Field(description="Requests that are admitted and not answered.")
    manifest: dict[str, Any]


class Disagreement(BaseModel):
    """One text to which a model and its shadow gave different labels."""

    label: str
    score: float
    shadow_label: str
    shadow_score: float
    shadow_version: str
    divergence_nats: float = Field(description="KL divergence of the model's scores from the shadow's.")
    tokens: int
    text: str | None = Field(description="Only where the server may log texts.")
    text_pair: str | None


class ShadowReport(BaseModel):
    """How far a model and its shadow agree, as the worker that answers has counted."""

    model: str
    version: str
    shadow: str | None = Field(description="The model that also computes a share of the texts; null for none.")
    rate: float = Field(description="The share that is sampled; each such text is compared, dropped or waits.")
    compared: int
    agreed: int
    dropped: dict[str, int] = Field(description="By reason.")
    waiting: int
    disagreements: list[Disagreement] = Field(description="The last 1,000, newest first.")


class IndexRequest(_Body):
    """Which models to list."""

    ready: bool = Field(default=False, description="Only models that are served.")


def _check_empty(parameters: dict[str, Any]) -> dict[str, Any]:
    if parameters:
        raise PydanticCustomError("not_supported", "is not supported: a model is loaded from its folder as it is")
    return parameters


class LoadRequest(_Body):
    """How to load a model."""

    parameters: Annotated[dict[str, Any], AfterValidator(_check_empty)] = Field(
        default={},
        description="Empty: a model is loaded from its folder, not from a config or files.",
        json_schema_extra={"maxProperties": 0},
    )


class UnloadRequest(_Body):
    """How to unload a model."""

    parameters: dict[Literal["unload_dependents"], bool] = Field(default={}, description="Without effect.")


class RepositoryLine(BaseModel):
    """One version of one model, as Triton lists it."""

    name: str
    version: str = Field(description="Empty until the model is loaded.")
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not served, or why the last load was refused.")


class RepositoryError(BaseModel):
    """An error, as Triton writes it."""

    error: str


class Health(BaseModel):
    """A healthy server's answer."""

    status: Literal["live", "ready"]


class ProblemField(BaseModel):
    """One field that does not fit."""

    path: str = Field(examples=["inputs[3].text"])
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(examples=["urn:ladabert:problem:invalid-request"])
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[ProblemField] | None = Field(default=None, description="The fields that do not fit (422 only).")


def parse_request(model: type[RequestT], value: Any, texts: str | None = None, max_inputs: int = 0) -> RequestT:
    """Check a decoded JSON value; raises InvalidRequestError with the path of each field that does not fit.

    A list `texts` over `max_inputs` raises TooLargeError. That and unknown fields are found before the list is
    validated.
    """
    if isinstance(value, dict):
        unknown = [name for name in value if name not in model.model_fields]
        if unknown:
            errors = [FieldError(str(name)[:100], "no such field") for name in unknown[:MAX_REPORTED_ERRORS]]
            raise InvalidRequestError(errors)
        listed = value.get(texts)
        if isinstance(listed, list) and len(listed) > max_inputs:
            raise TooLargeError(str(texts), len(listed), max_inputs, "texts")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_REPORTED_ERRORS]
        raise InvalidRequestError(
            [FieldError(_path(entry["loc"]), MESSAGES.get(entry["type"], entry["msg"])) for entry in found]
        ) from error


def text_input(entry: str | TextPair, path: str, limit_bytes: int) -> TextInput:
    """Return one input of a request; raises TooLargeError for a text over the limit."""
    if isinstance(entry, str):
        value = TextInput(entry)
        size_bytes = len(entry.encode())
    else:
        value = TextInput(entry.text, entry.text_pair)
        size_bytes = max(len(text.encode()) for text in value if text is not None)
    if size_bytes > limit_bytes:
        raise TooLargeError(path, size_bytes, limit_bytes, "bytes")
    return value


def _path(location: tuple[int | str, ...]) -> str:
    """Return a path as in `inputs[3].text`."""
    path = ""
    for position, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in UNION_TAGS or position == 0:
            path += f".{part[:100]}" if path else part[:100]
    return path
