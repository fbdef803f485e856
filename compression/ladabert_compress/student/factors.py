"""Matrix factorisation: W (m, n) ≈ A·Bᵀ by truncated SVD (equations 1 to 4), plain or weighted by data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Share of the mean variance added to every direction: directions without variance in the sample keep some weight.
DAMPING = 1e-2
TALL = 8  # rows over columns, from which on a matrix is factorised by its columns' products


@dataclass(frozen=True)
class InputMoments:
    """Of one linear layer's inputs x over real tokens: ``mean`` E[x] (n,), ``second`` E[x·xᵀ] (n, n), float64."""

    mean: Tensor
    second: Tensor


class Factorised(nn.Module):
    """A matrix A·Bᵀ and a bias: ``left`` is A (rows, r), ``right`` is B (columns, r)."""

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)
        self.bias = None if bias is None else nn.Parameter(bias)

    def weight_matrix(self) -> Tensor:
        """A·Bᵀ, (rows, columns)."""
        return self.left @ self.right.T


class FactorisedLinear(Factorised):
    """A linear layer of weight A·Bᵀ (out_features, in_features)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        return nn.functional.linear(inputs @ self.right, self.left, self.bias)


class FactorisedEmbedding(Factorised):
    """An embedding table A·Bᵀ (rows, width)."""

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (…) → (…, width)."""
        return nn.functional.embedding(ids, self.left) @ self.right.T


Matrixlike = nn.Linear | nn.Embedding | Factorised


def truncated_svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A = U_r·√Σ_r (m, r) and B = V_r·√Σ_r (n, r): the closest A·Bᵀ of that rank (equations 1 and 2).

    Of a tall table, such as one of 250,000 tokens, Wᵀ·W (n, n) says the same at a fraction of the work.
    """
    if weight.shape[0] >= TALL * weight.shape[1]:
        return row_weighted_svd(weight, weight.new_ones(len(weight)), rank)
    u, sigma, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    root = sigma[:rank].sqrt()
    left, right = u[:, :rank] * root, vt[:rank].T * root
    return left.to(weight.dtype).contiguous(), right.to(weight.dtype).contiguous()


def damped_covariance(moments: InputMoments) -> Tensor:
    """The inputs' covariance C (n, n), positive definite."""
    covariance = moments.second - torch.outer(moments.mean, moments.mean)
    covariance.diagonal().add_(DAMPING * covariance.diagonal().mean() + 1e-12)
    return covariance


def centred_root(moments: InputMoments) -> Tensor:
    """A root S (n, n) of the inputs' damped covariance C = S·Sᵀ."""
    root: Tensor = torch.linalg.cholesky(damped_covariance(moments))
    return root


def output_svd(weight: Tensor, moments: InputMoments, rank: int) -> tuple[Tensor, Tensor]:
    """A (m, r) and B (n, r) of the least E‖(W − A·Bᵀ)·(x − E[x])‖²: the layer's output error, up to a bias.

    The truncated SVD of W·S, with S a root of the inputs' covariance, taken back by S⁻¹ (DRONE, SVD-LLM);
    each column has the same norm in both factors.
    """
    root = centred_root(moments)
    u, sigma, vt = torch.linalg.svd(weight.double() @ root, full_matrices=False)
    left = u[:, :rank] * sigma[:rank]
    right = torch.linalg.solve_triangular(root.T, vt[:rank].T, upper=True)
    balance = (right.norm(dim=0) / left.norm(dim=0).clamp(min=1e-30)).sqrt()
    return (left * balance).to(weight.dtype).contiguous(), (right / balance).to(weight.dtype).contiguous()


def row_weighted_svd(weight: Tensor, row_weights: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (m, r) and B (n, r) of the least Σᵢ wᵢ‖Wᵢ − (A·Bᵀ)ᵢ‖² for positive weights (m,) of the rows."""
    relative, exact = row_weights.double() / row_weights.double().mean(), weight.double()
    values, vectors = torch.linalg.eigh(exact.T @ (exact * relative.unsqueeze(1)))
    basis = vectors.flip(1)[:, :rank]
    root = values.flip(0)[:rank].clamp(min=1e-30).sqrt().sqrt()
    left = exact @ basis / root
    return left.to(weight.dtype).contiguous(), (basis * root).to(weight.dtype).contiguous()


@torch.no_grad()
def rank_energies(weight: Tensor, moments: InputMoments | None, row_weights: Tensor | None) -> Tensor:
    """What each rank takes from the error that :func:`factorise` makes smallest, largest first, float64.

    A row's weight counts its error that many times over.
    """
    weight = weight.double() if moments is None else weight.double() @ centred_root(moments)
    if row_weights is not None:
        weight = weight * row_weights.double().sqrt().unsqueeze(1)
    smaller = weight.T @ weight if weight.shape[0] > weight.shape[1] else weight @ weight.T
    energies: Tensor = torch.linalg.eigvalsh(smaller).flip(0).clamp(min=0)
    return energies


@torch.no_grad()
def factorise(
    module: Matrixlike, rank: int, *, moments: InputMoments | None = None, row_weights: Tensor | None = None
) -> Factorised:
    """The module with its weight, or the product of its factors, cut to ``rank``.

    The cut is the one of least error: of the output where the moments of a linear layer's inputs are given, of the
    weighted rows where the rows of an embedding have weights, and of the matrix elsewhere.
    """
    weight = module.weight_matrix() if isinstance(module, Factorised) else module.weight
    if isinstance(module, nn.Embedding | FactorisedEmbedding):
        return FactorisedEmbedding(
            *(truncated_svd(weight, rank) if row_weights is None else row_weighted_svd(weight, row_weights, rank))
        )
    bias = None if module.bias is None else module.bias.detach().clone()
    if moments is None:
        return FactorisedLinear(*truncated_svd(weight, rank), bias)
    left, right = output_svd(weight, moments, rank)
    if bias is not None:  # so that the mean output stays
        bias += (weight.double() @ moments.mean - left.double() @ (right.double().T @ moments.mean)).to(bias.dtype)
    return FactorisedLinear(left, right, bias)


def empty_factors(module: nn.Linear | nn.Embedding, rank: int) -> Factorised:
    """The module's shape with factors of zeros, to load weights into."""
    rows, columns = module.weight.shape
    left, right = module.weight.new_zeros(rows, rank), module.weight.new_zeros(columns, rank)
    if isinstance(module, nn.Embedding):
        return FactorisedEmbedding(left, right)
    return FactorisedLinear(left, right, None if module.bias is None else torch.zeros_like(module.bias))
