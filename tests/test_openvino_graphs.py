"""Students' own graphs in OpenVINO: fitted to a length or not, alone or not, a text answers the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from ladabert_compress.graph.builder import LOGITS
from ladabert_compress.graph.encoder import build_bert_graph, graph_inputs
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.student.budget import GroupShares
from ladabert_compress.student.student import Student
from ladabert_serve.backends.backend import Backend
from ladabert_serve.backends.onnx_runtime import load_onnx_backend
from tests.compression.conftest import tiny_bert  # noqa: F401 - a fixture

TASK = "single"
MAX_LENGTH = 36
LENGTHS = (3, 8, 11, 16, 29, 32, 36)  # the last is over every length that has a graph of its own
PLANS = {"of heads": GraphPlan(), "in rank space": GraphPlan(shared_rank_limit=80)}


@pytest.fixture(params=PLANS)
def graph(request: pytest.FixtureRequest, tiny_bert: BertForSequenceClassification) -> bytes:  # noqa: F811
    """A student's fp32 graph for single texts."""
    pytest.importorskip("openvino", reason="needs the extra openvino: pip install 'ladabert[openvino]'")
    torch.manual_seed(1)
    student = Student(tiny_bert)
    student.cut_at_random({group: GroupShares(0.5, 0.5) for group in ("embedding", "encoder")})
    for name, parameter in student.model.named_parameters():
        if name.endswith((".left", ".right")):
            parameter.data *= 8  # answers that differ visibly
    content: bytes = build_bert_graph(student.model.eval(), TASK, None, PLANS[request.param]).SerializeToString()
    return content


def in_openvino(graph: bytes) -> Backend:
    from ladabert_serve.backends.openvino_runtime import load_openvino_backend

    return load_openvino_backend(graph, graph_inputs(TASK), LOGITS, MAX_LENGTH, fixed_tokens=64)


def texts() -> list[Any]:
    random = np.random.default_rng(0)
    return [random.integers(5, 64, length) for length in LENGTHS]


def run(backend: Backend, batch: list[Any]) -> Any:
    shape = len(batch), max(len(ids) for ids in batch)
    ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, text in enumerate(batch):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return backend.run(ids, mask, np.zeros_like(ids))


def test_a_text_answers_the_same_in_a_graph_for_its_length_and_in_one_for_every_shape(graph: bytes) -> None:
    backend = in_openvino(graph)
    for text in [*texts(), *texts()]:  # the second time with buffers that hold another text
        np.testing.assert_allclose(run(backend, [text]), run(backend, [text, text])[:1], rtol=0, atol=1e-3)


def test_a_student_in_openvino_answers_the_same_alone_and_in_a_batch(graph: bytes) -> None:
    backend = in_openvino(graph)
    alone = np.concatenate([run(backend, [text]) for text in texts()])
    assert np.ptp(alone, axis=0).min() > 0.05, alone
    np.testing.assert_allclose(run(backend, texts()), alone, rtol=0, atol=1e-3)


def test_a_student_in_openvino_answers_as_in_onnx_runtime(graph: bytes) -> None:
    expected = run(load_onnx_backend(graph, graph_inputs(TASK), LOGITS, "cpu"), texts())
    np.testing.assert_allclose(run(in_openvino(graph), texts()), expected, rtol=0.03, atol=0.1)  # it may use bf16
