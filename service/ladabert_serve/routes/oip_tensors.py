"""An Open Inference Protocol request as texts, and predictions as its output tensors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from ladabert_serve.errors import TooLargeError
from ladabert_serve.http.body import parse_json
from ladabert_serve.http.oip_schemas import InferRequest, InputTensor, RequestedOutput
from ladabert_serve.http.schemas import parse_request
from ladabert_serve.http.tensors import (
    BinaryData,
    flatten_texts,
    pack_floats,
    pack_texts,
    refusal,
    split_body,
    unpack_texts,
)
from ladabert_serve.models.question import Prediction
from ladabert_serve.models.scores import scores_in_order
from ladabert_serve.models.served import Served
from ladabert_serve.models.tokenizer import TextInput
from ladabert_serve.settings import Settings

ALL_OUTPUTS = (RequestedOutput(name="label"), RequestedOutput(name="score"), RequestedOutput(name="scores"))
MAX_VALUES_PER_TEXT = 6  # brackets and commas of two tensors whose data is nested
MAX_VALUES_BESIDE = 128  # of all other fields
RAW = "0"  # the header of a body that is one text and nothing else


def read_request(body: bytes, header_length: str, settings: Settings) -> tuple[InferRequest, list[TextInput]]:
    """Return a request and its texts; `header_length` says how many bytes of the body are JSON, empty for all.

    Raises RequestError, for a shape over the limit before any text is read.
    """
    front, rest = split_body(body, header_length)
    if header_length == RAW:
        payload, rest = _raw_payload(rest), b""
    else:
        payload = parse_json(front, MAX_VALUES_PER_TEXT * settings.max_inputs + MAX_VALUES_BESIDE)
    request = parse_request(InferRequest, payload)
    _check_outputs(request.outputs)
    binary = BinaryData(rest)
    columns: dict[str, list[str]] = {}
    for index, tensor in enumerate(request.inputs):
        path = f"inputs[{index}]"
        if tensor.name in columns:
            raise refusal(f"{path}.name", f"is {tensor.name!r} a second time")
        columns[tensor.name] = _read_texts(tensor, path, binary, settings)
    binary.check_end()
    return request, _join(columns)


def write_response(request: InferRequest, model: Served, predictions: Sequence[Prediction]) -> tuple[bytes, int | None]:
    """Return the body of an answer and, where binary data follow its JSON, how many bytes the JSON has."""
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for wanted in request.outputs or ALL_OUTPUTS:
        tensor = _tensor(wanted, model.artefact.labels, predictions)
        output: dict[str, Any] = {"name": wanted.name, "datatype": tensor.datatype, "shape": tensor.shape}
        binary = wanted.parameters.binary_data
        if request.parameters.binary_data_output if binary is None else binary:
            pack = pack_texts if tensor.datatype == "BYTES" else pack_floats
            parts.append(pack(tensor.values))
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = tensor.values
        outputs.append(output)
    head = {"id": request.id} if request.id else {}
    names = {"model_name": model.name, "model_version": model.artefact.version}
    front = to_json({**head, **names, "outputs": outputs})
    return b"".join((front, *parts)), len(front) if parts else None


def _check_outputs(outputs: Sequence[RequestedOutput]) -> None:
    """Raise InvalidRequestError for an output that is asked for twice, or as classes where it has none."""
    for index, output in enumerate(outputs):
        if any(output.name == earlier.name for earlier in outputs[:index]):
            raise refusal(f"outputs[{index}].name", f"is {output.name!r} a second time")
        if output.parameters.classification is not None and output.name != "scores":
            raise refusal(f"outputs[{index}].parameters.classification", "is for the output 'scores' alone")


class _Tensor(NamedTuple):
    datatype: str
    shape: list[int]
    values: list[Any]  # row-major


def _tensor(wanted: RequestedOutput, labels: Sequence[str], predictions: Sequence[Prediction]) -> _Tensor:
    rows = len(predictions)
    if wanted.name == "label":
        return _Tensor("BYTES", [rows], [prediction["label"] for prediction in predictions])
    if wanted.name == "score":
        return _Tensor("FP32", [rows], [prediction["score"] for prediction in predictions])
    classes = wanted.parameters.classification
    if classes is None:
        values = [score for prediction in predictions for score in scores_in_order(labels, prediction["scores"])]
        return _Tensor("FP32", [rows, len(labels)], values)
    index_of = {label: index for index, label in enumerate(labels)}
    best = [prediction["scores"][:classes] for prediction in predictions]
    texts = [f"{each['score']:f}:{index_of[each['label']]}:{each['label']}" for row in best for each in row]
    return _Tensor("BYTES", [rows, min(classes, len(labels))], texts)


def _raw_payload(body: bytes) -> dict[str, Any]:
    """Return the request that a body without JSON means: one text, answered in binary."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise refusal("the body", f"is not UTF-8: {error.reason} at byte {error.start}") from error
    return {
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}],
        "parameters": {"binary_data_output": True},
    }


def _read_texts(tensor: InputTensor, path: str, binary: BinaryData, settings: Settings) -> list[str]:
    """Return the texts of one input tensor, from the JSON or from the binary data."""
    shape = tensor.shape
    if shape[1:] not in ([], [1]):
        raise refusal(f"{path}.shape", f"must be [n] or [n, 1], not {shape}")
    if shape[0] > settings.max_inputs:
        raise TooLargeError(f"{path}.shape", shape[0], settings.max_inputs, "texts")
    size = None if tensor.parameters is None else tensor.parameters.binary_data_size
    if (size is None) is (tensor.data is None):
        both = "both" if tensor.data is not None else "neither"
        raise refusal(path, f"must have either data or parameters.binary_data_size, and has {both}")
    if tensor.data is not None:
        texts = flatten_texts(tensor.data, shape, f"{path}.data")
    else:
        assert size is not None
        texts = unpack_texts(binary.take(size, path), shape[0], path)
    for index, text in enumerate(texts):
        size_bytes = len(text.encode())
        if size_bytes > settings.max_text_bytes:
            raise TooLargeError(f"{path}.data[{index}]", size_bytes, settings.max_text_bytes, "bytes")
    return texts


def _join(columns: dict[str, list[str]]) -> list[TextInput]:
    texts, pairs = columns.get("text"), columns.get("text_pair")
    if texts is None:
        raise refusal("inputs", "has no tensor 'text'")
    if pairs is None:
        return [TextInput(text) for text in texts]
    if len(pairs) != len(texts):
        raise refusal("inputs", f"has {len(texts)} elements in 'text' and {len(pairs)} in 'text_pair'")
    return [TextInput(*pair) for pair in zip(texts, pairs, strict=True)]
