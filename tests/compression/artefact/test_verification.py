import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from ladabert_compress.artefact.verification import check_batch_invariance, check_parity
from ladabert_compress.data.batches import Batch
from ladabert_compress.errors import ExportError
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.int8_scales import measure_activation_ranges
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.predictions import Logits
from ladabert_compress.training.run import CompressionResult


@pytest.mark.parametrize("task", ["single", "pair"])
def test_a_dense_graph_computes_what_pytorch_computes(tiny_bert: BertForSequenceClassification, task: str) -> None:
    assert check_parity(tiny_bert, build_bert_graph(tiny_bert, task), 40) < 2e-5


def test_a_factorised_graph_computes_what_pytorch_computes(result: CompressionResult) -> None:
    assert result.student.ranks
    assert check_parity(result.student.model, build_bert_graph(result.student.model, "single"), 32) < 2e-5


def test_a_graph_of_other_weights_is_refused(tiny_bert: BertForSequenceClassification) -> None:
    graph = build_bert_graph(tiny_bert, "single")
    with torch.no_grad():
        tiny_bert.get_parameter("bert.encoder.layer.1.output.dense.weight")[0, 0] += 1
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        check_parity(tiny_bert, graph, 40)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_error_allowed_grows_with_the_logits(tiny_bert: BertForSequenceClassification, scale: float) -> None:
    """At 10,000 times the logits, rounding alone is over 1e-4; at a 10,000th, a wrong weight is under it."""
    with torch.no_grad():
        tiny_bert.classifier.weight.mul_(scale)
        tiny_bert.classifier.bias.mul_(scale)
    graph = build_bert_graph(tiny_bert, "single")
    check_parity(tiny_bert, graph, 40)
    with torch.no_grad():
        tiny_bert.get_parameter("bert.encoder.layer.1.output.dense.weight")[0, 0] += 1
    with pytest.raises(ExportError, match="of their spread"):
        check_parity(tiny_bert, graph, 40)


def test_equal_logits_for_every_text_are_compared_by_their_size(tiny_bert: BertForSequenceClassification) -> None:
    with torch.no_grad():
        tiny_bert.classifier.weight.zero_()
        tiny_bert.classifier.bias.fill_(3.0)
    assert check_parity(tiny_bert, build_bert_graph(tiny_bert, "single"), 40) == 0


class NearTie:
    """A graph of two labels whose scores are equal but for a difference that depends on the size of the batch."""

    def __init__(self, change: float) -> None:
        self.change, self.runs_of_one = change, 0

    def logits(self, batch: Batch) -> Logits:
        self.runs_of_one += len(batch.input_ids) == 1
        size = self.change if len(batch.input_ids) > 1 else -self.change
        return np.tile(np.array([[0.0, size]], dtype=np.float32), (len(batch.input_ids), 1))


def test_a_label_may_change_where_its_score_hardly_does(result: CompressionResult) -> None:
    found = check_batch_invariance(NearTie(1e-4), "graph", result.dev_data, 32)
    assert found.changed_labels == len(result.dev_data)
    assert 0 < found.largest_score_change < 1e-3
    with pytest.raises(ExportError, match=r"a text's scores change by 0\.005"):
        check_batch_invariance(NearTie(0.01), "graph", result.dev_data, 32)


def test_a_few_hundred_rows_stand_for_a_large_dev_set(result: CompressionResult) -> None:
    graph = NearTie(0.0)
    many = result.dev_data.select([*range(len(result.dev_data))] * 20)
    found = check_batch_invariance(graph, "graph", many, 32)
    assert found.rows == graph.runs_of_one <= 256


def test_an_int8_answer_does_not_depend_on_the_batch(result: CompressionResult) -> None:
    batches = [result.train_data.batch(range(32))]
    graph = build_bert_graph(result.student.model, "single", measure_activation_ranges(result.student.model, batches))
    session = OnnxSession(graph.SerializeToString())
    found = check_batch_invariance(session, "int8", result.dev_data, 32)
    assert found.largest_score_change < 1e-3
    assert found.rows == len(result.dev_data)
    alone, padded = result.dev_data.batch([0]), result.dev_data.batch([0], pad_to=30)
    assert np.abs(session.logits(alone) - session.logits(padded)).max() < 1e-3
