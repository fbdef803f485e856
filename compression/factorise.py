"""Matrix factorisation: W (m, n) ≈ A·Bᵀ by truncated SVD (equations 1 to 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FactorisedLinear(nn.Module):
    """A linear layer with weight A·Bᵀ: ``left`` is A (out_features, r), ``right`` is B (in_features, r)."""

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        return nn.functional.linear(inputs @ self.right, self.left, self.bias)

    def weight_matrix(self) -> Tensor:
        """A·Bᵀ, (out_features, in_features)."""
        return self.left @ self.right.T


class FactorisedEmbedding(nn.Module):
    """An embedding table A·Bᵀ: ``left`` is A (rows, r), ``right`` is B (width, r)."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (…) → (…, width)."""
        return nn.functional.embedding(ids, self.left) @ self.right.T

    def weight_matrix(self) -> Tensor:
        """A·Bᵀ, (rows, width)."""
        return self.left @ self.right.T


Factorised = FactorisedLinear | FactorisedEmbedding
Matrixlike = nn.Linear | nn.Embedding | FactorisedLinear | FactorisedEmbedding


def truncated_svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A = U_r·√Σ_r (m, r) and B = V_r·√Σ_r (n, r): the closest A·Bᵀ of that rank (equations 1 and 2)."""
    u, sigma, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    root = sigma[:rank].sqrt()
    left, right = u[:, :rank] * root, vt[:rank].T * root
    return left.to(weight.dtype).contiguous(), right.to(weight.dtype).contiguous()


@torch.no_grad()
def factorise(module: Matrixlike, rank: int) -> Factorised:
    """The module with its weight, or the product of its factors, cut to ``rank``."""
    weight = module.weight_matrix() if isinstance(module, Factorised) else module.weight
    left, right = truncated_svd(weight, rank)
    if isinstance(module, nn.Embedding | FactorisedEmbedding):
        return FactorisedEmbedding(left, right)
    return FactorisedLinear(left, right, None if module.bias is None else module.bias.detach().clone())


def empty_factors(module: nn.Linear | nn.Embedding, rank: int) -> Factorised:
    """The module's shape with factors of zeros, to load weights into."""
    rows, columns = module.weight.shape
    left, right = module.weight.new_zeros(rows, rank), module.weight.new_zeros(columns, rank)
    if isinstance(module, nn.Embedding):
        return FactorisedEmbedding(left, right)
    return FactorisedLinear(left, right, None if module.bias is None else torch.zeros_like(module.bias))
