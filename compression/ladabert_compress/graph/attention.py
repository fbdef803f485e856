"""Attention as ONNX nodes, in three forms that compute the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn
from transformers import BertForSequenceClassification

from ladabert_compress.graph.builder import MICROSOFT
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.graph.products import Array, Products, array, bias_of
from ladabert_compress.student.factors import FactorisedLinear

PARTS = ("self.query", "self.key", "self.value", "output.dense")
# Added to the scores of padding, whose probability it makes exactly zero; fp16 can hold it.
MASKED = -3e4


class AttentionGraph:
    """Adds self-attention, from the layer's input to the output of ``attention.output.dense``."""

    def __init__(self, model: BertForSequenceClassification, products: Products, plan: GraphPlan) -> None:
        self.model, self.products, self.graph, self.plan = model, products, products.graph, plan
        self.head_size = model.config.hidden_size // model.config.num_attention_heads

    def add(self, queries: str, hidden: str, prefix: str) -> str:
        """Queries (B, Q, H) attend to hidden (B, T, H); returns (B, Q, H)."""
        parts = [self.model.get_submodule(f"{prefix}.attention.{part}") for part in PARTS]
        if all(isinstance(part, FactorisedLinear) for part in parts):
            _, key_rank, value_rank, output_rank = (part.get_parameter("right").shape[1] for part in parts)
            if max(key_rank, min(value_rank, output_rank)) <= self.plan.shared_rank_limit:
                return self._in_rank_space(queries, hidden, prefix, parts)
        context = self._of_heads(
            *(
                self._linear(inputs, f"{prefix}.attention.self.{part}")
                for inputs, part in ((queries, "query"), (hidden, "key"), (hidden, "value"))
            ),
            heads=self._heads(parts[0]),
        )
        return self._linear(context, f"{prefix}.attention.output.dense")

    def _heads(self, part: nn.Module) -> int:
        """The heads of a layer, by its query, key or value; the configuration may say more."""
        return len(bias_of(part)) // self.head_size

    def _of_heads(self, query: str, key: str, value: str, *, heads: int) -> str:
        """(B, Q, heads·size), (B, T, heads·size) and (B, T, heads·size) → (B, Q, heads·size)."""
        graph = self.graph
        if self.plan.attention == "fused":
            mask = self.graph.shared_node("Cast", "attention_mask", to=6)  # int32
            return graph.node("MultiHeadAttention", query, key, value, "", mask, domain=MICROSOFT, num_heads=heads)
        shape = graph.integers(0, 0, heads, self.head_size)
        query, key, value = (
            graph.node("Transpose", graph.node("Reshape", part, shape), perm=[0, 2, 1, 3])
            for part in (query, key, value)
        )  # (B, heads, T, head size)
        scores = graph.node("FusedMatMul", query, key, domain=MICROSOFT, transB=1, alpha=self.head_size**-0.5)
        mask = self.graph.shared_node("Unsqueeze", self._mask_column(), graph.integers(1))  # (B, 1, T, 1)
        mask = self.graph.shared_node("Transpose", mask, perm=[0, 1, 3, 2])
        probabilities = graph.node("Softmax", graph.node("Add", scores, mask), axis=-1)
        context = graph.node("Transpose", graph.node("MatMul", probabilities, value), perm=[0, 2, 1, 3])
        return graph.node("Reshape", context, graph.integers(0, 0, heads * self.head_size))

    def _in_rank_space(self, queries: str, hidden: str, prefix: str, parts: Sequence[nn.Module]) -> str:
        """Attention on keys in rank space, one for all heads; values are there, too, or in the output matrix's.

        With keys K = k·Aₖᵀ (k = x·Bₖ of width r) a head's scores are Qₕ·Kₕᵀ = (Qₕ·Aₖₕ)·kᵀ, so that all heads of a
        text are rows of one product and nothing is transposed. The keys' bias shifts all scores of a row alike, which
        softmax does not see; the values' bias passes through, as probabilities add up to one.
        """
        query, key, value, output = parts
        graph, products, name = self.graph, self.products, f"{prefix}.attention.self"
        rights = [array(part.get_parameter("right")) for part in (key, value)]
        key_rank, value_rank = (right.shape[1] for right in rights)
        rank_query = products.product(
            queries, f"{name}.query.right", array(query.get_parameter("right")), f"{name}.query"
        )
        both = products.product(hidden, f"{name}.key_value.right", np.concatenate(rights, axis=1), f"{name}.key")
        rank_key, rank_value = graph.nodes("Split", both, graph.integers(key_rank, value_rank), outputs=2, axis=-1)

        # The mask is one more column of the keys, and every query's entry there is 1.
        weight, shift = self._scorers(query, key)
        scorers = graph.node(
            "Add",
            graph.node("MatMul", rank_query, graph.weight(f"{name}.query.scorers", weight)),
            graph.weight(f"{name}.query.scorers.bias", shift),
        )
        scorers = graph.node("Reshape", scorers, graph.integers(0, -1, key_rank + 1))  # (B, Q·heads, r + 1)
        masked_keys = graph.node("Concat", rank_key, self._mask_column(), axis=-1)  # (B, T, r + 1)
        scores = graph.node("FusedMatMul", scorers, masked_keys, domain=MICROSOFT, transB=1)
        probabilities = graph.node("Softmax", scores, axis=-1)  # (B, Q·heads, T)
        inner = self._inner_output(probabilities, rank_value, prefix, value, output)
        name = f"{prefix}.attention.output.dense"
        left = array(output.get_parameter("left")).T
        return products.product(inner, f"{name}.left", left, f"{name}.rank", bias_of(output))

    def _scorers(self, query: nn.Module, key: nn.Module) -> tuple[Array, Array]:
        """Weight (r, heads·(rₖ + 1)) and bias from the queries' rank space to what scores keys in theirs, and mask."""
        query_heads, key_heads = self._by_head(query), self._by_head(key)
        heads, _, rank = query_heads.shape
        key_rank = key_heads.shape[2]
        weight = np.zeros((rank, heads, key_rank + 1), dtype=np.float32)
        weight[:, :, :-1] = np.einsum("hdq,hdk->qhk", query_heads, key_heads) * self.head_size**-0.5
        shift = np.ones((heads, key_rank + 1), dtype=np.float32)
        bias = bias_of(query).reshape(heads, self.head_size)
        shift[:, :-1] = np.einsum("hd,hdk->hk", bias, key_heads) * self.head_size**-0.5
        return weight.reshape(rank, -1), shift.reshape(-1)

    def _inner_output(
        self, probabilities: str, rank_value: str, prefix: str, value: nn.Module, output: nn.Module
    ) -> str:
        """The output matrix's rank space, (B, Q, r): Σₕ Pₕ·v·Mₕ with Mₕ = Aᵥₕᵀ·Bₒₕ, the smaller product first."""
        graph, products, name = self.graph, self.products, f"{prefix}.attention.output.dense"
        right = array(output.get_parameter("right"))
        value_heads = self._by_head(value)
        heads, _, value_rank = value_heads.shape
        output_rank = right.shape[1]
        merged = np.einsum("hdv,hdo->hvo", value_heads, right.reshape(heads, self.head_size, -1))
        shift = bias_of(value) @ right
        # A head's context is a mean of rows of the values in rank space: their range holds for it, too.
        range_name = f"{prefix}.attention.self.value.rank"
        if value_rank <= output_rank:
            context = graph.node("MatMul", probabilities, rank_value)  # (B, Q·heads, rᵥ)
            context = graph.node("Reshape", context, graph.integers(0, -1, heads * value_rank))
            return products.product(context, f"{name}.merged", merged.reshape(-1, output_rank), range_name, shift)
        weight = merged.transpose(1, 0, 2).reshape(value_rank, -1)
        outputs = products.product(rank_value, f"{name}.merged", weight, range_name)  # (B, T, heads·rₒ)
        outputs = graph.node("Reshape", outputs, graph.integers(0, -1, output_rank))  # (B, T·heads, rₒ)
        # (B, Q, T·heads) times (B, T·heads, rₒ) sums over heads and tokens at once. Tokens come first, so that padding
        # adds its zeros at the end: between the heads they would change the order of the sum, and so its last bit.
        by_head = graph.node("Reshape", probabilities, self._queries_and_heads(heads))  # (B, Q, heads, T)
        by_token = graph.node("Transpose", by_head, perm=[0, 1, 3, 2])
        tokens = graph.shared_node("Shape", "attention_mask", start=1, end=2)
        columns = graph.shared_node("Mul", tokens, graph.integers(heads))
        wide = graph.shared_node("Concat", graph.integers(0, -1), columns, axis=0)
        summed = graph.node("MatMul", graph.node("Reshape", by_token, wide), outputs)
        return graph.node("Add", summed, graph.weight(f"{name}.merged.bias", shift))

    def _queries_and_heads(self, heads: int) -> str:
        """The shape (B, Q, heads, T) of probabilities (B, Q·heads, T)."""
        graph = self.graph
        batch = graph.shared_node("Shape", "attention_mask", start=0, end=1)
        tokens = graph.shared_node("Shape", "attention_mask", start=1, end=2)
        return graph.shared_node("Concat", batch, graph.integers(-1, heads), tokens, axis=0)

    def _by_head(self, module: nn.Module) -> Array:
        """A of A·Bᵀ head by head, (heads, head size, r)."""
        return array(module.get_parameter("left")).reshape(-1, self.head_size, module.get_parameter("left").shape[1])

    def _linear(self, inputs: str, name: str) -> str:
        return self.products.linear(inputs, self.model.get_submodule(name), name)

    def _mask_column(self) -> str:
        """(B, T, 1): 0 for a token and a large negative number for padding."""
        graph = self.graph
        mask = graph.shared_node("Cast", "attention_mask", to=1)  # float32
        bias = graph.shared_node("Mul", graph.shared_node("Sub", graph.scalar(1.0), mask), graph.scalar(MASKED))
        return graph.shared_node("Unsqueeze", bias, graph.integers(2))
