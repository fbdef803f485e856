import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compression.factorise import FactorisedEmbedding, FactorisedLinear, factorise, truncated_svd
from compression.matrices import Matrix


@given(rows=st.integers(2, 20), columns=st.integers(2, 20), data=st.data())
def test_the_error_of_a_truncated_svd_is_the_tail_of_singular_values(
    rows: int, columns: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, min(rows, columns)))
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * 100 + columns)).double()
    left, right = truncated_svd(weight, rank)
    assert left.shape == (rows, rank)
    assert right.shape == (columns, rank)
    tail = torch.linalg.svdvals(weight)[rank:].square().sum().sqrt()
    assert torch.linalg.norm(weight - left @ right.T) == pytest.approx(float(tail), abs=1e-9)


def test_the_square_root_of_sigma_goes_to_both_factors() -> None:
    left, right = truncated_svd(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)), 5)
    assert torch.allclose(left.square().sum(dim=0), right.square().sum(dim=0), rtol=1e-4)


def test_a_factorised_linear_layer_at_full_rank_computes_the_same() -> None:
    layer = nn.Linear(6, 10)
    inputs = torch.randn(3, 4, 6)
    factors = factorise(layer, 6)
    assert isinstance(factors, FactorisedLinear)
    assert torch.allclose(factors(inputs), layer(inputs), atol=1e-5)


def test_a_factorised_embedding_at_full_rank_looks_up_the_same() -> None:
    table = nn.Embedding(20, 6)
    ids = torch.tensor([[3, 19], [0, 3]])
    factors = factorise(table, 6)
    assert isinstance(factors, FactorisedEmbedding)
    assert torch.allclose(factors(ids), table(ids), atol=1e-5)


def test_factors_can_be_cut_again() -> None:
    once = factorise(nn.Linear(16, 16), 8)
    twice = factorise(once, 3)
    expected = truncated_svd(once.weight_matrix().detach(), 3)
    assert torch.allclose(twice.weight_matrix(), expected[0] @ expected[1].T, atol=1e-5)


@pytest.mark.parametrize(("share", "rank"), [(0.4, 77), (0.0001, 1)])
def test_the_rank_is_what_equation_4_says(share: float, rank: int) -> None:
    assert Matrix("w", "encoder", 384, 384).rank(share) == rank
