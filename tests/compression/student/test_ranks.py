import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ladabert_compress.errors import RecipeError
from ladabert_compress.student.matrices import Matrix
from ladabert_compress.student.ranks import allocate_ranks, equal_ranks, least_share

SHAPES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5)
MULTIPLES = st.integers(2, 16)


def matrices_of(shapes: Sequence[tuple[int, int]]) -> list[Matrix]:
    return [Matrix(str(index), "encoder", rows, columns) for index, (rows, columns) in enumerate(shapes)]


def spent_on(ranks: dict[str, int], matrices: Sequence[Matrix]) -> int:
    return sum(ranks[matrix.name] * (matrix.rows + matrix.columns) for matrix in matrices)


@given(
    spectra=st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=5), min_size=1, max_size=3),
    cost=st.integers(1, 9),
    budget=st.integers(0, 150),
    multiple=st.integers(1, 3),
)
def test_no_other_ranks_of_the_same_cost_save_more(
    spectra: list[list[float]], cost: int, budget: int, multiple: int
) -> None:
    energies = {
        str(index): torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
        for index, values in enumerate(spectra)
    }
    choices = [[*range(multiple, len(energy), multiple), len(energy)] for energy in energies.values()]
    assume(budget >= cost * sum(ranks[0] for ranks in choices))
    ranks = allocate_ranks(energies, dict.fromkeys(energies, cost), budget, multiple)
    assert all(ranks[name] in allowed for name, allowed in zip(energies, choices, strict=True))
    spent = cost * sum(ranks.values())
    assert spent <= budget
    saved = sum(float(energy[: ranks[name]].sum()) for name, energy in energies.items())
    whole = all(len(energy) % multiple == 0 for energy in energies.values())  # else the last step is a cheaper one
    for other in itertools.product(*choices) if whole else ():
        if cost * sum(other) <= spent:
            total = sum(float(energy[:rank].sum()) for energy, rank in zip(energies.values(), other, strict=True))
            assert total <= saved + 1e-9


def test_a_dear_rank_gives_way_to_a_cheap_one_that_saves_more_per_parameter() -> None:
    energies = {"dear": torch.tensor([9.0, 5.0]), "cheap": torch.tensor([9.0, 4.0])}
    assert allocate_ranks(energies, {"dear": 10, "cheap": 2}, 15) == {"dear": 1, "cheap": 2}


def test_a_step_that_no_longer_fits_gives_way_to_a_cheaper_one() -> None:
    energies = {"dear": torch.tensor([9.0, 90.0, 80.0]), "cheap": torch.tensor([9.0, 4.0])}
    assert allocate_ranks(energies, {"dear": 10, "cheap": 2}, 20) == {"dear": 1, "cheap": 2}


@given(shapes=SHAPES, multiple=MULTIPLES, share=st.floats(0.01, 1))
def test_equal_ranks_are_multiples_within_the_budget_or_refused(
    shapes: list[tuple[int, int]], multiple: int, share: float
) -> None:
    matrices = matrices_of(shapes)
    budget = round(share * sum(matrix.size for matrix in matrices))
    if share < least_share(matrices, multiple):
        assume(budget < spent_on({m.name: min(multiple, m.full_rank) for m in matrices}, matrices))
        with pytest.raises(RecipeError, match="lower the multiple or the ratio"):
            equal_ranks(matrices, share, multiple)
        return
    ranks = equal_ranks(matrices, share, multiple)
    assert spent_on(ranks, matrices) <= budget
    assert all(ranks[matrix.name] % multiple == 0 or ranks[matrix.name] == matrix.full_rank for matrix in matrices)


def test_equal_ranks_by_a_multiple_leave_less_than_one_step_of_the_budget() -> None:
    matrices = matrices_of([(384, 384)] * 4 + [(384, 1536)] * 2)
    ranks = equal_ranks(matrices, 0.1, 16)
    assert ranks == {"0": 16, "1": 16, "2": 16, "3": 16, "4": 32, "5": 32}
    assert equal_ranks(matrices, 0.1, 1) == {"0": 19, "1": 19, "2": 19, "3": 19, "4": 31, "5": 31}
    assert 0 <= 0.1 * sum(matrix.size for matrix in matrices) - spent_on(ranks, matrices) < 16 * 768


@given(shapes=SHAPES, multiple=MULTIPLES)
def test_the_least_share_reaches_for_one_step_of_each_matrix(shapes: list[tuple[int, int]], multiple: int) -> None:
    matrices = matrices_of(shapes)
    ranks = equal_ranks(matrices, least_share(matrices, multiple), multiple)
    assert ranks == {matrix.name: min(multiple, matrix.full_rank) for matrix in matrices}
