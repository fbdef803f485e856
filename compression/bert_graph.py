"""Writes a BERT student as an ONNX graph for ONNX Runtime's CPU kernels.

The graph is written by hand, operator by operator, because tracing and the usual fusions lose what
compression saved: fused attention is not found once Q, K and V are factors, and the fused
SkipLayerNormalization is slower on a CPU than the addition and normalisation that it replaces.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from compression.factorise import FactorisedEmbedding, FactorisedLinear
from compression.onnx_graph import MICROSOFT, GraphBuilder
from compression.quantise import Ranges, quantise_columns, quantise_rows

LOGITS = "logits"


def build_bert_graph(model: BertForSequenceClassification, task: str, ranges: Ranges | None = None) -> onnx.ModelProto:
    """The classifier as a graph from ids and mask to logits.

    Args:
        model: the student, dense or factorised.
        task: ``single`` leaves the token types out: they are all zero.
        ranges: the activations' ranges for an int8 graph; ``None`` writes fp32.
    """
    return _BertGraph(model, task, ranges).build()


def graph_inputs(task: str) -> tuple[str, ...]:
    """The names of the graph's inputs."""
    return ("input_ids", "attention_mask") + (("token_type_ids",) if task == "pair" else ())


class _BertGraph:
    def __init__(self, model: BertForSequenceClassification, task: str, ranges: Ranges | None) -> None:
        self.model = model
        self.task = task
        self.ranges = ranges
        self.graph = GraphBuilder()
        self._quantised: dict[str, tuple[str, str, str]] = {}

    def build(self) -> onnx.ModelProto:
        graph = self.graph
        hidden = self._embeddings()
        key_mask = graph.node("Cast", "attention_mask", to=onnx.TensorProto.INT32)
        layers = self.model.config.num_hidden_layers
        for index in range(layers):
            hidden = self._layer(hidden, key_mask, index, first_token_only=index == layers - 1)
        first = graph.node("Squeeze", hidden, graph.integers(1))  # (B, 1, H) → (B, H)
        pooled = graph.node("Tanh", self._linear(first, "bert.pooler.dense"))
        classifier = self.model.classifier
        graph.node(
            "Gemm",
            pooled,
            graph.weight("classifier.weight", _array(classifier.weight)),
            graph.weight("classifier.bias", _array(classifier.bias)),
            transB=1,
            output=LOGITS,
        )
        return graph.model(graph_inputs(self.task), LOGITS, self.model.classifier.out_features)

    def _embeddings(self) -> str:
        """(B, T) → (B, T, H): words, positions and token types, normalised."""
        graph, embeddings = self.graph, self.model.bert.embeddings
        words = self._lookup("input_ids", "bert.embeddings.word_embeddings")
        length = graph.node("Shape", "input_ids", start=1, end=2)
        positions = self._first_rows(length, "bert.embeddings.position_embeddings")
        types = _array(embeddings.token_type_embeddings.get_parameter("weight"))
        if self.task == "pair":
            table = graph.weight("token_types", types)
            token_types = graph.node("Gather", table, "token_type_ids")
        else:
            token_types = graph.weight("token_type_0", types[0])
        total = graph.node("Add", graph.node("Add", words, positions), token_types)
        return self._layer_norm(total, "bert.embeddings.LayerNorm")

    def _lookup(self, ids: str, name: str) -> str:
        """The rows ``ids`` (…) of an embedding table, (…, H)."""
        graph, module = self.graph, self.model.get_submodule(name)
        table = module.get_parameter("left" if isinstance(module, FactorisedEmbedding) else "weight")
        if self.ranges is None:
            rows = graph.node("Gather", graph.weight(f"{name}.table", _array(table)), ids)
            return self._project(rows, module, name)
        quantised, scales = quantise_rows(_array(table))
        rows = graph.node("Gather", graph.weight(f"{name}.table", quantised), ids)
        row_scales = graph.node("Gather", graph.weight(f"{name}.scales", scales), ids)
        return graph.node("Mul", self._project_quantised(rows, module, name), row_scales)

    def _first_rows(self, length: str, name: str) -> str:
        """The first ``length`` rows of an embedding table, (T, H)."""
        graph, module = self.graph, self.model.get_submodule(name)
        table = module.get_parameter("left" if isinstance(module, FactorisedEmbedding) else "weight")
        rows = graph.node("Slice", graph.weight(f"{name}.table", _array(table)), graph.integers(0), length)
        return self._project(rows, module, name)

    def _project(self, rows: str, module: nn.Module, name: str) -> str:
        if not isinstance(module, FactorisedEmbedding):
            return rows
        return self.graph.node("MatMul", rows, self.graph.weight(f"{name}.right", _array(module.right).T))

    def _project_quantised(self, rows: str, module: nn.Module, name: str) -> str:
        """Rows of uint8 around 128 → float32 times B, still to be multiplied by each row's scale."""
        graph = self.graph
        zero_point = graph.weight("zero_point_128", np.array(128, dtype=np.uint8))
        if not isinstance(module, FactorisedEmbedding):
            return graph.node("DequantizeLinear", rows, graph.scalar(1.0), zero_point)
        weight, scales = self._int8_weight(f"{name}.right", _array(module.right).T)
        return graph.node("MatMulIntegerToFloat", rows, weight, graph.scalar(1.0), scales, zero_point, domain=MICROSOFT)

    def _layer(self, hidden: str, key_mask: str, index: int, *, first_token_only: bool) -> str:
        """One encoder layer, (B, T, H) → (B, T, H); the last answers for the first token only, (B, 1, H)."""
        graph, prefix = self.graph, f"bert.encoder.layer.{index}"
        queries = hidden
        if first_token_only:
            queries = graph.node("Slice", hidden, graph.integers(0), graph.integers(1), graph.integers(1))
        attention = graph.node(
            "MultiHeadAttention",
            self._linear(queries, f"{prefix}.attention.self.query"),
            self._linear(hidden, f"{prefix}.attention.self.key"),
            self._linear(hidden, f"{prefix}.attention.self.value"),
            "",
            key_mask,
            domain=MICROSOFT,
            num_heads=self.model.config.num_attention_heads,
        )
        attended = graph.node("Add", self._linear(attention, f"{prefix}.attention.output.dense"), queries)
        attended = self._layer_norm(attended, f"{prefix}.attention.output.LayerNorm")
        inner = self._linear(attended, f"{prefix}.intermediate.dense", activation="Gelu")
        # A few tokens' activations are a hundred times the others' here: one scale for all would blur the rest.
        output = graph.node("Add", self._linear(inner, f"{prefix}.output.dense", per_token=True), attended)
        return self._layer_norm(output, f"{prefix}.output.LayerNorm")

    def _linear(self, inputs: str, name: str, activation: str = "", *, per_token: bool = False) -> str:
        """A linear layer with bias, of one matrix or two factors, and the activation after it.

        In int8 its inputs have a scale for each token where ``per_token`` says so, else one fixed scale.
        """
        graph, module = self.graph, self.model.get_submodule(name)
        if isinstance(module, FactorisedLinear):
            inputs = self._matmul(inputs, f"{name}.right", _array(module.right), name, per_token=per_token)
            weight, last, range_name = _array(module.left).T, f"{name}.left", f"{name}.rank"
        else:
            weight, last, range_name = _array(module.get_parameter("weight")).T, f"{name}.weight", name
        bias = graph.weight(f"{name}.bias", _array(module.get_parameter("bias")))
        if self.ranges is not None:
            output = self._matmul(inputs, last, weight, range_name, bias, per_token=per_token)
            return graph.node(activation, output, domain=MICROSOFT) if activation else output
        output = self._matmul(inputs, last, weight, range_name)
        if activation:
            return graph.node(f"Bias{activation}", output, bias, domain=MICROSOFT)
        return graph.node("Add", output, bias)

    def _matmul(
        self,
        inputs: str,
        name: str,
        weight: npt.NDArray[np.float32],
        range_name: str,
        bias: str = "",
        *,
        per_token: bool = False,
    ) -> str:
        """Inputs (…, k) times a weight (k, n); in int8 the bias is added on the way out."""
        graph = self.graph
        if self.ranges is None:
            return graph.node("MatMul", inputs, graph.weight(name, weight))
        int8, scales = self._int8_weight(name, weight)
        if not per_token:
            quantised, scale, zero_point = self._quantise(inputs, range_name)
            return graph.node(
                "MatMulIntegerToFloat", quantised, int8, scale, scales, zero_point, "", bias, domain=MICROSOFT
            )
        peaks = graph.node("ReduceMax", graph.node("Abs", inputs), graph.integers(-1), keepdims=1)  # (…, 1)
        peaks = graph.node("Max", peaks, graph.scalar(1e-6))
        step, zero_point = graph.scalar(1 / 127), graph.weight("zero_point_128", np.array(128, dtype=np.uint8))
        quantised = graph.node("QuantizeLinear", graph.node("Div", inputs, peaks), step, zero_point)
        product = graph.node("MatMulIntegerToFloat", quantised, int8, step, scales, zero_point, domain=MICROSOFT)
        product = graph.node("Mul", product, peaks)
        return graph.node("Add", product, bias) if bias else product

    def _quantise(self, inputs: str, range_name: str) -> tuple[str, str, str]:
        """The tensor as uint8 with its scale and zero point; quantised once, however many read it."""
        assert self.ranges is not None
        if inputs not in self._quantised:
            graph = self.graph
            scale_value, zero_value = self.ranges[range_name].scale_and_zero_point()
            scale = graph.weight(f"{range_name}.input_scale", np.array(scale_value))
            zero_point = graph.weight(f"{range_name}.input_zero_point", np.array(zero_value))
            self._quantised[inputs] = graph.node("QuantizeLinear", inputs, scale, zero_point), scale, zero_point
        return self._quantised[inputs]

    def _int8_weight(self, name: str, weight: npt.NDArray[np.float32]) -> tuple[str, str]:
        quantised, scales = quantise_columns(weight)
        return self.graph.weight(f"{name}.int8", quantised), self.graph.weight(f"{name}.scales", scales)

    def _layer_norm(self, inputs: str, name: str) -> str:
        graph, module = self.graph, self.model.get_submodule(name)
        return graph.node(
            "LayerNormalization",
            inputs,
            graph.weight(f"{name}.weight", _array(module.get_parameter("weight"))),
            graph.weight(f"{name}.bias", _array(module.get_parameter("bias"))),
            axis=-1,
            epsilon=float(self.model.config.layer_norm_eps),
        )


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array
