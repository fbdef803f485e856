import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.ranks import allocate_ranks


@given(
    spectra=st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=5), min_size=1, max_size=3),
    cost=st.integers(1, 9),
    budget=st.integers(0, 150),
)
def test_no_other_ranks_of_the_same_cost_save_more(spectra: list[list[float]], cost: int, budget: int) -> None:
    energies = {
        str(index): torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
        for index, values in enumerate(spectra)
    }
    ranks = allocate_ranks(energies, dict.fromkeys(energies, cost), budget)
    assert all(1 <= ranks[name] <= len(energy) for name, energy in energies.items())
    spent = cost * sum(ranks.values())
    assert spent <= max(budget, cost * len(energies))
    saved = sum(float(energy[: ranks[name]].sum()) for name, energy in energies.items())
    for other in itertools.product(*(range(1, len(energy) + 1) for energy in energies.values())):
        if cost * sum(other) <= spent:
            total = sum(float(energy[:rank].sum()) for energy, rank in zip(energies.values(), other, strict=True))
            assert total <= saved + 1e-9


def test_a_dear_rank_gives_way_to_a_cheap_one_that_saves_more_per_parameter() -> None:
    energies = {"dear": torch.tensor([9.0, 5.0]), "cheap": torch.tensor([9.0, 4.0])}
    assert allocate_ranks(energies, {"dear": 10, "cheap": 2}, 15) == {"dear": 1, "cheap": 2}
