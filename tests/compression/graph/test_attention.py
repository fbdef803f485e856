"""Every way to write attention computes what PyTorch computes, at ranks on both sides of every choice."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForSequenceClassification

from ladabert_compress.artefact.verification import check_half, check_parity
from ladabert_compress.data.batches import Batch
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.half_precision import half_precision
from ladabert_compress.graph.int8_scales import measure_activation_ranges
from ladabert_compress.graph.plan import CUDA_PLAN, GraphPlan
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.recipe import StructureRecipe
from ladabert_compress.student.factors import empty_factors
from ladabert_compress.student.structure import narrow
from tests.compression.conftest import tiny_config
from tests.compression.student.test_structure import random_batch

PARTS = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")


def student(ranks: list[int], heads: float = 1.0) -> BertForSequenceClassification:
    """Attention of these ranks in every layer, 0 leaves a matrix whole, and of this share of the four heads."""
    torch.manual_seed(0)
    model: BertForSequenceClassification = BertForSequenceClassification._from_config(
        tiny_config(), attn_implementation="eager"
    )
    model = narrow(model, StructureRecipe(heads=heads)).model
    for layer in model.bert.encoder.layer:
        for part, rank in zip(PARTS, ranks, strict=True):
            if rank:
                parent, _, child = part.rpartition(".")
                setattr(layer.get_submodule(parent), child, empty_factors(layer.get_submodule(part), rank))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    model.eval()
    return model


@settings(max_examples=12, deadline=None)
@given(
    ranks=st.lists(st.integers(0, 8), min_size=4, max_size=4),
    heads=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    plan=st.sampled_from(["fused", "plain"]),
)
def test_every_plan_computes_what_pytorch_computes(ranks: list[int], heads: float, plan: str) -> None:
    model = student(ranks, heads)
    for limit in (0, 5, 8):
        graph = build_bert_graph(model, "single", None, GraphPlan(plan, limit))  # type: ignore[arg-type]
        assert check_parity(model, graph, 40) < 1e-4


@pytest.mark.parametrize("heads", [1.0, 0.75])
def test_the_rule_for_cuda_computes_the_same_in_fp16_too(heads: float) -> None:
    model = student([4, 4, 4, 4], heads)
    graph = build_bert_graph(model, "single", None, CUDA_PLAN)
    assert check_parity(model, graph, 40) < 1e-4
    assert operators(graph)["SkipLayerNormalization"] == 4
    assert check_half(graph, half_precision(graph), 40, "single_label") < 0.02


@pytest.mark.parametrize("heads", [1.0, 0.5])
@pytest.mark.parametrize("ranks", [[4, 3, 2, 9], [4, 3, 9, 2]])
def test_in_rank_space_no_head_is_moved_and_int8_stays_near(ranks: list[int], heads: float) -> None:
    model = student(ranks, heads)
    batch = random_batch(model, 16)
    ranges = measure_activation_ranges(model, [batch])
    graph = build_bert_graph(model, "single", ranges, GraphPlan(shared_rank_limit=9))
    assert "MultiHeadAttention" not in operators(graph)
    expected = OnnxSession(build_bert_graph(model, "single").SerializeToString()).logits(batch)
    actual = OnnxSession(graph.SerializeToString()).logits(batch)
    assert np.abs(actual - expected).max() < 0.15 * np.abs(expected).max()


@pytest.mark.parametrize("ranks", [[4, 3, 2, 9], [4, 3, 9, 2]])
def test_in_rank_space_padding_changes_no_bit(ranks: list[int]) -> None:
    model = student(ranks)
    session = OnnxSession(build_bert_graph(model, "single", None, GraphPlan(shared_rank_limit=9)).SerializeToString())
    alone = random_batch(model, 1)
    padding = torch.zeros(1, 28, dtype=torch.int64)
    ids, mask = (torch.cat([part, padding], dim=1) for part in (alone.input_ids, alone.attention_mask))
    padded = Batch(ids, mask, torch.zeros_like(ids), alone.labels)
    assert np.array_equal(session.logits(alone), session.logits(padded))


def operators(graph: onnx.ModelProto) -> dict[str, int]:
    names = [node.op_type for node in graph.graph.node]
    return {name: names.count(name) for name in names}
