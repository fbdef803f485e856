"""Writes a BERT student as an ONNX graph for ONNX Runtime's CPU kernels.

The graph is written operator by operator because tracing and the usual fusions lose what compression saved: they do not
find attention once Q, K and V are factors, and the fused SkipLayerNormalization is slower on a CPU than its parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from torch import nn
from transformers import BertForSequenceClassification

from ladabert_compress.graph.attention import AttentionGraph
from ladabert_compress.graph.builder import LOGITS, MICROSOFT, GraphBuilder
from ladabert_compress.graph.int8_scales import Array, Ranges, quantise_rows
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.graph.products import Products, array
from ladabert_compress.student.bert import has_projection, head_activation
from ladabert_compress.student.factors import FactorisedEmbedding

DEFAULT_PLAN = GraphPlan()


def build_bert_graph(
    model: BertForSequenceClassification,
    task: str,
    ranges: Ranges | None = None,
    plan: GraphPlan = DEFAULT_PLAN,
    max_length: int | None = None,
) -> onnx.ModelProto:
    """The classifier as a graph from ids and mask to logits.

    Args:
        model: the student, dense or factorised.
        task: ``single`` leaves the token types out: they are all zero.
        ranges: the activations' ranges for an int8 graph; ``None`` writes fp32.
        plan: which of the graphs that compute the same.
        max_length: tokens that it can read; ``None``: as many as the model.
    """
    return _BertGraph(model, task, ranges, plan, max_length).build()


def quantised_products(
    model: BertForSequenceClassification, task: str, ranges: Ranges, plan: GraphPlan
) -> dict[str, int]:
    """The products that the graph computes in int8: by the name of their inputs' range, their number of weights."""
    graph = _BertGraph(model, task, ranges, plan)
    graph.build()
    return graph.products.in_int8


def graph_inputs(task: str) -> tuple[str, ...]:
    """The names of the graph's inputs."""
    return ("input_ids", "attention_mask") + (("token_type_ids",) if task == "pair" else ())


def table_of(module: nn.Module) -> Array:
    """The whole table (rows, H) of an embedding, whether it is factorised or not."""
    if isinstance(module, FactorisedEmbedding):
        return array(module.get_parameter("left")) @ array(module.right).T
    return array(module.get_parameter("weight"))


@dataclass
class _BertGraph:
    model: BertForSequenceClassification
    task: str
    ranges: Ranges | None
    plan: GraphPlan
    max_length: int | None = None

    def __post_init__(self) -> None:
        self.graph = GraphBuilder()
        self.products = Products(self.graph, self.ranges, self.plan.fp32_products, self.plan.weight_bits)
        self.attention = AttentionGraph(self.model, self.products, self.plan)

    def build(self) -> onnx.ModelProto:
        graph = self.graph
        hidden = self._embeddings()
        layers = self.model.config.num_hidden_layers
        for index in range(layers):
            hidden = self._layer(hidden, index, first_token_only=index == layers - 1)
        first = graph.node("Squeeze", hidden, graph.integers(1))  # (B, 1, H) → (B, H)
        pooled = self._head(first)
        classifier = self.model.classifier
        graph.node(
            "Gemm",
            pooled,
            graph.weight("classifier.weight", array(classifier.weight)),
            graph.weight("classifier.bias", array(classifier.bias)),
            transB=1,
            output=LOGITS,
        )
        return graph.model(graph_inputs(self.task), LOGITS, self.model.classifier.out_features)

    def _head(self, first: str) -> str:
        """What the classifier reads of the first token's output, (B, H) → (B, H)."""
        activation = head_activation(self.model.config)
        if activation == "gelu":
            return self._linear(first, "bert.pooler.dense", "Gelu")
        return self.graph.node(activation.capitalize(), self._linear(first, "bert.pooler.dense"))

    def _embeddings(self) -> str:
        """(B, T) → (B, T, H): words, positions and token types, normalised, and projected where H is another size."""
        graph, embeddings = self.graph, self.model.bert.embeddings
        words = self._lookup("input_ids", "bert.embeddings.word_embeddings")
        rows = table_of(self.model.get_submodule("bert.embeddings.position_embeddings"))[: self.max_length]
        types = array(embeddings.token_type_embeddings.get_parameter("weight"))
        if self.task == "pair":
            words = graph.node("Add", words, graph.node("Gather", graph.weight("token_types", types), "token_type_ids"))
        else:  # one row for all
            rows = rows + types[0]
        table = self.products.constant("bert.embeddings.position_embeddings", rows)
        length = graph.node("Shape", "input_ids", start=1, end=2)
        positions = graph.node("Slice", table, graph.integers(0), length)  # (T, H)
        normalised = self._layer_norm(graph.node("Add", words, positions), "bert.embeddings.LayerNorm")
        if not has_projection(self.model.config):
            return normalised
        return self._linear(normalised, "bert.embeddings.projection")

    def _lookup(self, ids: str, name: str) -> str:
        """The rows ``ids`` (…) of an embedding table, (…, H)."""
        graph, module = self.graph, self.model.get_submodule(name)
        table = module.get_parameter("left" if isinstance(module, FactorisedEmbedding) else "weight")
        if self.ranges is None:
            rows = graph.node("Gather", graph.weight(f"{name}.table", array(table)), ids)
            return self._project(rows, module, name)
        quantised, scales = quantise_rows(array(table))
        rows = graph.node("Gather", graph.weight(f"{name}.table", quantised), ids)
        row_scales = graph.node("Gather", self.products.constant(f"{name}.scales", scales), ids)
        return graph.node("Mul", self._project_quantised(rows, module, name), row_scales)

    def _project(self, rows: str, module: nn.Module, name: str) -> str:
        if not isinstance(module, FactorisedEmbedding):
            return rows
        return self.graph.node("MatMul", rows, self.graph.weight(f"{name}.right", array(module.right).T))

    def _project_quantised(self, rows: str, module: nn.Module, name: str) -> str:
        """Rows of uint8 around 128 → float32 times B, still to be multiplied by each row's scale."""
        graph = self.graph
        zero_point = graph.weight("zero_point_128", np.array(128, dtype=np.uint8))
        if not isinstance(module, FactorisedEmbedding):
            return graph.node("DequantizeLinear", rows, graph.scalar(1.0), zero_point)
        weight, scales = self.products.int8_weight(f"{name}.right", array(module.right).T)
        return graph.node("MatMulIntegerToFloat", rows, weight, graph.scalar(1.0), scales, zero_point, domain=MICROSOFT)

    def _layer(self, hidden: str, index: int, *, first_token_only: bool) -> str:
        """One encoder layer, (B, T, H) → (B, T, H); the last computes the first token only, (B, 1, H)."""
        graph, prefix = self.graph, f"bert.encoder.layer.{index}"
        queries = hidden
        if first_token_only:
            queries = graph.node("Slice", hidden, graph.integers(0), graph.integers(1), graph.integers(1))
        attended = self.attention.add(queries, hidden, prefix)
        attended = self._add_and_normalise(attended, queries, f"{prefix}.attention.output.LayerNorm")
        output = self._linear(self._activated(attended, prefix), f"{prefix}.output.dense")
        return self._add_and_normalise(output, attended, f"{prefix}.output.LayerNorm")

    def _activated(self, inputs: str, prefix: str) -> str:
        """The feed-forward block's neurons, (…, H) → (…, F)."""
        name = f"{prefix}.intermediate.dense"
        if self.model.config.hidden_act != "relu":
            return self._linear(inputs, name, "Gelu")
        neurons = self._linear(inputs, name)
        if self.products.is_int8(f"{prefix}.output.dense"):
            return neurons  # their range begins at zero: quantised, what is below it is zero
        return self.graph.node("Relu", neurons)

    def _linear(self, inputs: str, name: str, activation: str = "") -> str:
        return self.products.linear(inputs, self.model.get_submodule(name), name, activation)

    def _add_and_normalise(self, one: str, other: str, name: str) -> str:
        if not self.plan.fused_normalisation:
            return self._layer_norm(self.graph.node("Add", one, other), name)
        scale, shift = self._norm_weights(name)
        return self.graph.node(
            "SkipLayerNormalization", one, other, scale, shift, domain=MICROSOFT, epsilon=self._epsilon
        )

    def _layer_norm(self, inputs: str, name: str) -> str:
        scale, shift = self._norm_weights(name)
        return self.graph.node("LayerNormalization", inputs, scale, shift, axis=-1, epsilon=self._epsilon)

    def _norm_weights(self, name: str) -> tuple[str, str]:
        graph, module = self.graph, self.model.get_submodule(name)
        return (
            graph.weight(f"{name}.weight", array(module.get_parameter("weight"))),
            graph.weight(f"{name}.bias", array(module.get_parameter("bias"))),
        )

    @property
    def _epsilon(self) -> float:
        return float(self.model.config.layer_norm_eps)
