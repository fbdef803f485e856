"""Claims about tensors of the Open Inference Protocol: what was packed comes back, and what is broken is refused."""

import re
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ladabert_serve.errors import InvalidRequestError
from ladabert_serve.http.tensors import (
    BinaryData,
    flatten_texts,
    pack_floats,
    pack_texts,
    split_body,
    unpack_texts,
)

TEXTS = st.lists(st.text())
COUNTS = st.integers(1, 1000)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


@given(TEXTS)
def test_packed_texts_come_back(texts: list[str]) -> None:
    assert unpack_texts(pack_texts(texts), len(texts), "t") == texts


@given(TEXTS)
def test_texts_are_packed_as_the_protocol_says(texts: list[str]) -> None:
    expected = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    assert pack_texts(texts) == expected


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_floats_are_packed_as_numpy_reads_them(values: list[float]) -> None:
    assert np.frombuffer(pack_floats(values), "<f4").tolist() == values


@given(st.binary(), COUNTS)
@example(b"\xff\xff\xff\xff", 1)
@example(b"\x01\x00\x00\x00\xff", 1)
def test_any_bytes_are_texts_or_refused(data: bytes, count: int) -> None:
    try:
        texts = unpack_texts(data, count, "t")
    except InvalidRequestError:
        return
    assert pack_texts(texts) == data
    assert len(texts) == count


@given(TEXTS.filter(bool), st.data())
def test_a_packed_tensor_that_is_cut_or_longer_is_refused(texts: list[str], data: st.DataObject) -> None:
    packed = pack_texts(texts)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    for wrong in (cut, packed + b"\x00"):
        with pytest.raises(InvalidRequestError):
            unpack_texts(wrong, len(texts), "t")
    for count in (len(texts) - 1, len(texts) + 1):
        with pytest.raises(InvalidRequestError):
            unpack_texts(packed, count, "t")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01\x00", "ends before the length of element 0"),
        (b"\x05\x00\x00\x00abc", "says that element 0 has 5 bytes, 3 are left"),
        (b"\x01\x00\x00\x00\xff", "has an element 0 that is not UTF-8"),
        (b"\x01\x00\x00\x00ab", "has 1 bytes after its 1 elements"),
    ],
)
def test_a_broken_tensor_is_named_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        unpack_texts(data, 1, "inputs[0]")
    assert refused.value.detail.startswith(f"inputs[0]: {message}")


@given(st.binary(), st.text() | st.integers(-5, 40).map(str))
@example(b"{}", "²")
@example(b"{}", "٣")
def test_a_body_is_split_where_the_header_says_or_refused(body: bytes, header_length: str) -> None:
    plain = re.fullmatch("[0-9]{0,10}", header_length)
    if plain is None or int(header_length or 0) > len(body):
        with pytest.raises(InvalidRequestError, match="Inference-Header-Content-Length"):
            split_body(body, header_length)
        return
    front, rest = split_body(body, header_length)
    assert front + rest == body
    assert len(front) == (int(header_length) if header_length else len(body))


@given(st.binary(), st.lists(st.integers(0, 20), max_size=3))
def test_binary_data_is_taken_once_and_whole_or_refused(data: bytes, sizes: list[int]) -> None:
    binary = BinaryData(data)
    try:
        parts = [binary.take(size, "t") for size in sizes]
        binary.check_end()
    except InvalidRequestError:
        assert sum(sizes) != len(data)
    else:
        assert b"".join(parts) == data


def test_binary_data_without_the_header_says_which_header() -> None:
    with pytest.raises(InvalidRequestError, match="Inference-Header-Content-Length has to say where the JSON ends"):
        BinaryData(b"").take(4, "inputs[0]")


@given(st.lists(st.text()), st.booleans(), st.booleans())
def test_flat_and_nested_data_mean_the_same(texts: list[str], two_dimensions: bool, nested: bool) -> None:
    shape = [len(texts), 1] if two_dimensions or nested else [len(texts)]
    assert flatten_texts([[text] for text in texts] if nested else texts, shape, "t") == texts


@given(st.lists(JSON, max_size=4), st.lists(st.integers(1, 4), min_size=1, max_size=2))
def test_any_json_is_texts_of_its_shape_or_refused(data: list[object], shape: list[int]) -> None:
    try:
        texts = flatten_texts(data, shape, "t")
    except InvalidRequestError:
        return
    assert len(texts) == shape[0]
    assert all(isinstance(text, str) for text in texts)


def test_an_unpaired_surrogate_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="unpaired surrogate"):
        flatten_texts(["a", "\ud800"], [2], "t")
