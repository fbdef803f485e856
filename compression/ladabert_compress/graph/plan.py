"""The ways to write a graph: they compute the same and differ in speed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Attention = Literal["fused", "plain"]


@dataclass(frozen=True)
class GraphPlan:
    """How a graph is written; every plan computes the same logits, up to rounding in int8.

    Attributes:
        attention: ``fused`` is ONNX Runtime's ``MultiHeadAttention``, ``plain`` is batched matrix products.
        shared_rank_limit: a layer whose keys and values have at most this rank keeps both in rank space, one for all
            heads; 0: none does.
        fused_normalisation: ``SkipLayerNormalization`` in place of ``Add`` and ``LayerNormalization``.
        fp32_products: matrix products of an int8 graph that stay in fp32, by the names of their inputs.
        weight_bits: of an int8 graph's weights. Two products of 8 bits with 7 fit 16 bits, which x86 processors without
            VNNI add them in.
    """

    attention: Attention = "fused"
    shared_rank_limit: int = 0
    fused_normalisation: bool = False
    fp32_products: frozenset[str] = field(default_factory=frozenset)
    weight_bits: int = 8

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest; what is of int8 alone is listed apart."""
        values = asdict(self)
        del values["fp32_products"], values["weight_bits"]
        return values


# What CUDA runs fastest is known without measuring: fewer, larger kernels.
CUDA_PLAN = GraphPlan(fused_normalisation=True)


def cpu_plans(head_size: int) -> list[GraphPlan]:
    """The candidates for a CPU. Which one is fastest depends on ranks and processor: they are measured."""
    limits = (0, head_size * 3 // 2, head_size * 5 // 2)
    return [GraphPlan(attention, limit) for limit in limits for attention in ("fused", "plain")]
