"""Bodies of the Open Inference Protocol: what is asked, and what is answered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from ladabert_serve.http.schemas import Count, Natural, Text, TimeoutUs
from ladabert_serve.models.scores import FunctionToApply
from ladabert_serve.models.tokenizer import TruncationDirection

InputName = Literal["text", "text_pair"]
OutputName = Literal["label", "score", "scores"]
OneText: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
# The codec checks the elements: pydantic would see them twice.
TextData = Annotated[list[Any], WithJsonSchema({"type": "array", "items": OneText, "minItems": 1})]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class InputParameters(_Body):
    """How an input tensor was sent."""

    binary_data_size: Natural | None = Field(
        default=None, description="Bytes of this tensor in the binary data after the JSON; then it has no `data`."
    )


class InputTensor(_Body):
    """Texts, as many as the first number of the shape says."""

    name: InputName
    shape: list[Count] = Field(
        min_length=1,
        max_length=2,
        description="`[n]` or `[n, 1]`.",
        json_schema_extra={"examples": [[2], [2, 1]]},
    )
    datatype: Literal["BYTES"]
    parameters: InputParameters | None = None
    data: TextData | None = Field(default=None, description="The texts, flat or nested as the shape says.")


class OutputParameters(_Body):
    """How an output tensor is to be sent."""

    binary_data: bool | None = Field(default=None, description="In binary; unset: as `binary_data_output` says.")
    classification: Count | None = Field(
        default=None, description="Of `scores`: so many best classes, each as a text `score:index:label`."
    )


class RequestedOutput(_Body):
    """An output tensor to send."""

    name: OutputName
    parameters: OutputParameters = OutputParameters()


class InferParameters(_Body):
    """How to classify and to answer."""

    binary_data_output: bool = Field(default=False, description="Send the outputs in binary, after the JSON.")
    function_to_apply: FunctionToApply | None = Field(
        default=None,
        description="From logits to scores; unset: softmax, of a multi-label model sigmoid, of a regression none.",
    )
    truncate: bool = Field(default=True, description="Cut a text over the model's length; false: answer 400.")
    truncation_direction: TruncationDirection = Field(default="right", description="The side that is cut off.")
    timeout: TimeoutUs | None = Field(default=None, description="Deadline in microseconds; unset or 0: the server's.")
    priority: Natural | None = Field(default=None, description="Has no effect: requests share the model fairly.")


class InferRequest(_Body):
    """Texts, or pairs of texts, as tensors."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "42",
                    "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["good", "bad"]}],
                    "outputs": [{"name": "label"}, {"name": "score"}],
                }
            ]
        }
    )

    id: Text | None = Field(default=None, description="Comes back with the answer.")
    parameters: InferParameters = InferParameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=2)
    outputs: list[RequestedOutput] = Field(default=[], max_length=3, description="Tensors to send; unset: all.")


class ResponseParameters(BaseModel):
    """How an output tensor is sent."""

    binary_data_size: int = Field(description="Bytes of this tensor in the binary data after the JSON.")


class OutputTensor(BaseModel):
    """One output: `label` and `score` of each text, or the `scores` of all labels in the model's order."""

    name: OutputName
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str] | list[float] | None = Field(default=None, description="Flat, in row-major order.")
    parameters: ResponseParameters | None = None


class InferResponse(BaseModel):
    """The answer, with the outputs in the order in which they were asked for."""

    model_config = ConfigDict(protected_namespaces=())

    id: str | None = Field(default=None, description="The request's; absent where it had none.")
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


class InferError(BaseModel):
    """What went wrong."""

    error: str


class ServerLive(BaseModel):
    """Whether the process is up."""

    live: bool


class ServerReady(BaseModel):
    """Whether the server can answer requests."""

    ready: bool


class ServerMetadata(BaseModel):
    """The server, and the extensions of the protocol that it has."""

    name: str
    version: str
    extensions: list[str]


class ModelNames(BaseModel):
    """Every served model by name."""

    models: list[str]


class ModelReady(BaseModel):
    """Whether a model can answer requests."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; a size of -1 varies."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(BaseModel):
    """A tensor in the form of Triton's model configuration."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(BaseModel):
    """A model in the form of Triton's model configuration, whose `max_batch_size` of 0 says that shapes are whole."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
