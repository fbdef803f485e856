import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from ladabert_compress.artefact.verification import check_batch_invariance, check_parity
from ladabert_compress.errors import ExportError
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.int8_scales import measure_activation_ranges
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.training.run import CompressionResult


@pytest.mark.parametrize("task", ["single", "pair"])
def test_a_dense_graph_computes_what_pytorch_computes(tiny_bert: BertForSequenceClassification, task: str) -> None:
    assert check_parity(tiny_bert, build_bert_graph(tiny_bert, task), 40) < 1e-4


def test_a_factorised_graph_computes_what_pytorch_computes(result: CompressionResult) -> None:
    assert result.student.ranks
    assert check_parity(result.student.model, build_bert_graph(result.student.model, "single"), 32) < 1e-4


def test_a_graph_of_other_weights_is_refused(tiny_bert: BertForSequenceClassification) -> None:
    graph = build_bert_graph(tiny_bert, "single")
    with torch.no_grad():
        tiny_bert.get_parameter("bert.encoder.layer.1.output.dense.weight")[0, 0] += 1
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        check_parity(tiny_bert, graph, 40)


def test_an_int8_answer_does_not_depend_on_the_batch(result: CompressionResult) -> None:
    batches = [result.train_data.batch(range(32))]
    graph = build_bert_graph(result.student.model, "single", measure_activation_ranges(result.student.model, batches))
    session = OnnxSession(graph.SerializeToString())
    found = check_batch_invariance(session, "int8", result.dev_data, 32)
    assert found.largest_score_change < 1e-3
    assert found.rows == len(result.dev_data)
    alone, padded = result.dev_data.batch([0]), result.dev_data.batch([0], pad_to=30)
    assert np.abs(session.logits(alone) - session.logits(padded)).max() < 1e-3
