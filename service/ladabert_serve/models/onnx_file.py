"""What a graph may not hold, found in its bytes before a runtime reads them.

ONNX Runtime and OpenVINO both follow a tensor into another file, and older versions into any file or address. So the
bytes are walked here, in protobuf's wire format with the field numbers of onnx.proto, and both runtimes get the answer.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ladabert_serve.errors import ArtefactError

# A message to its fields that are messages themselves. What is not here holds no tensor.
CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
FUNCTIONS = 25  # of a model
OP_TYPE = 4  # of a node
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of a tensor
MAX_FIELDS = 1_000_000  # walked in about a second; graphs of BERT have some thousand
MAX_VARINT_BYTES = 10


class _Message(NamedTuple):
    kind: str
    start: int
    end: int
    operator: str = ""  # of the node that an attribute belongs to


def check_graph(data: bytes) -> None:
    """Raise ArtefactError for bytes that are no ONNX model, for tensors in other files, loops and functions."""
    waiting = [_Message("model", 0, len(data))]
    found_graph = False
    fields = 0
    while waiting:
        message = waiting.pop()
        children: list[_Message] = []
        operator = ""
        for number, value in _fields(data, message.start, message.end):
            fields += 1
            if fields > MAX_FIELDS:
                raise ArtefactError(f"has over {MAX_FIELDS} fields; no classifier's graph has so many")
            if message.kind == "model" and number == FUNCTIONS:
                raise ArtefactError("defines functions of its own; inline them (onnx.inliner)")
            if message.kind == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
                raise ArtefactError(
                    "keeps a tensor in another file, which is never read; save the graph as one file (onnx.save_model "
                    "with save_as_external_data=False)"
                )
            if not isinstance(value, slice):
                continue
            if message.kind == "node" and number == OP_TYPE:
                operator = data[value].decode("utf-8", "replace")
            if kind := CHILDREN[message.kind].get(number):
                if kind == "graph" and message.kind == "attribute" and message.operator != "If":
                    raise ArtefactError(
                        f"operator {message.operator[:40]!r} runs a graph of its own, and nothing bounds how often; "
                        "only If may hold one: export the model without it"
                    )
                children.append(_Message(kind, value.start, value.stop))
        found_graph = found_graph or any(child.kind == "graph" for child in children)
        waiting += [child._replace(operator=operator) for child in children]
    if not found_graph:
        raise ArtefactError("not an ONNX model: holds no graph")


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int | slice]]:
    """Yield each field's number with its value: an integer, or where its bytes lie."""
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        value: int | slice
        if number == 0 or tag >> 32:  # a reader that keeps 32 bits would see another field
            raise ArtefactError("not an ONNX model: a field without a number")
        if wire_type == 0:
            value, position = _varint(data, position, end)
        elif wire_type in (1, 2, 5):
            if wire_type == 2:
                length, position = _varint(data, position, end)
            else:
                length = 8 if wire_type == 1 else 4
            value = slice(position, position + length)
            position += length
        else:
            raise ArtefactError(f"not an ONNX model: a field of type {wire_type}")
        if position > end:
            raise ArtefactError("not an ONNX model: breaks off within a field")
        yield number, value


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the integer at a position, and the position after it."""
    value = 0
    for index in range(MAX_VARINT_BYTES):
        if position + index >= end:
            raise ArtefactError("not an ONNX model: breaks off within a number")
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ArtefactError("not an ONNX model: a number of more than ten bytes")
