import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ladabert_compress.student.factors import (
    FactorisedEmbedding,
    FactorisedLinear,
    InputMoments,
    factorise,
    rank_energies,
    row_weighted_svd,
    truncated_svd,
)
from ladabert_compress.student.matrices import Matrix


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


def test_a_tall_table_has_the_same_factors_without_an_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.randn(400, 16, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, 16)
    u, sigma, vt = torch.linalg.svd(table.double(), full_matrices=False)
    monkeypatch.setattr(torch.linalg, "svd", None)
    left, right = truncated_svd(table, 10)
    assert torch.allclose((left @ right.T).double(), (u[:, :10] * sigma[:10]) @ vt[:10], atol=1e-6)
    assert torch.allclose(left.square().sum(dim=0), right.square().sum(dim=0), rtol=1e-4)


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


def moments_of(inputs: torch.Tensor) -> InputMoments:
    return InputMoments(inputs.mean(dim=0).double(), (inputs.T @ inputs).double() / len(inputs))


@given(rows=st.integers(2, 12), columns=st.integers(2, 12), data=st.data())
def test_weighted_by_its_inputs_a_layer_s_outputs_are_nearer_than_by_plain_svd(
    rows: int, columns: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, min(rows, columns)))
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    inputs = torch.randn(400, columns, generator=generator) * torch.logspace(0, -1, columns) + 1
    layer = nn.Linear(columns, rows)
    with torch.no_grad():
        expected = layer(inputs)
        plain = (factorise(layer, rank)(inputs) - expected).square().mean()
        weighted = (factorise(layer, rank, moments=moments_of(inputs))(inputs) - expected).square().mean()
    assert weighted <= plain * 1.02 + 1e-9  # the damping gives up a little where plain SVD is nearly as good


def test_weighted_by_its_inputs_the_mean_output_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 8, generator=generator) + 3
    layer = nn.Linear(8, 6)
    cut = factorise(layer, 2, moments=moments_of(inputs))
    assert torch.allclose(cut(inputs).mean(dim=0), layer(inputs).mean(dim=0), atol=1e-4)


def test_weighted_by_its_inputs_full_rank_computes_the_same() -> None:
    layer, inputs = nn.Linear(8, 6), torch.randn(50, 8)
    assert torch.allclose(factorise(layer, 6, moments=moments_of(inputs))(inputs), layer(inputs), atol=1e-4)


def test_directions_without_variance_do_not_break_the_factors() -> None:
    inputs = torch.zeros(50, 8)
    inputs[:, 0] = torch.randn(50)
    cut = factorise(nn.Linear(8, 6), 3, moments=moments_of(inputs))
    assert all(bool(parameter.isfinite().all()) for parameter in cut.parameters())


def test_rows_of_an_embedding_that_weigh_more_are_nearer() -> None:
    table = nn.Embedding(30, 10)
    weights = torch.ones(30)
    weights[:5] = 100.0
    plain, weighted = factorise(table, 4), factorise(table, 4, row_weights=weights)
    error = [(factors.weight_matrix() - table.weight).square().sum(dim=1)[:5].sum() for factors in (plain, weighted)]
    assert error[1] < error[0] / 2


def test_equal_weights_are_the_plain_svd() -> None:
    table = nn.Embedding(30, 10)
    plain, weighted = factorise(table, 4), factorise(table, 4, row_weights=torch.full((30,), 7.0))
    assert torch.allclose(weighted.weight_matrix(), plain.weight_matrix(), atol=1e-5)
    assert torch.allclose(weighted.left.norm(dim=0), plain.left.norm(dim=0), atol=1e-5)


@given(rows=st.integers(2, 12), columns=st.integers(2, 12), data=st.data())
def test_the_energies_of_the_ranks_cut_away_are_the_error(rows: int, columns: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, min(rows, columns)))
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    weight = torch.randn(rows, columns, generator=generator).double()
    row_weights = torch.rand(rows, generator=generator).double() + 0.1
    left, right = row_weighted_svd(weight, row_weights, rank)
    error = ((weight - left @ right.T).square() * row_weights.unsqueeze(1)).sum()
    tail = rank_energies(weight, None, row_weights)[rank:].sum()
    assert float(error) == pytest.approx(float(tail), abs=1e-9)


@pytest.mark.parametrize(("share", "rank"), [(0.4, 77), (0.0001, 1)])
def test_the_rank_is_what_equation_4_says(share: float, rank: int) -> None:
    assert Matrix("w", "encoder", 384, 384).rank(share) == rank
