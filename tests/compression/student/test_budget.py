from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from ladabert_compress.errors import RecipeError
from ladabert_compress.recipe import BudgetRecipe, ScheduleRecipe, bundled_recipes, load_recipe
from ladabert_compress.student.budget import ratio_at, shares_at, solve_shares
from ladabert_compress.student.matrices import ParameterCounts, count_parameters


def counts_of(config: BertConfig) -> ParameterCounts:
    with torch.device("meta"):
        return count_parameters(BertForSequenceClassification(config))


@pytest.fixture(scope="module")
def bert_base() -> ParameterCounts:
    return counts_of(BertConfig())


@pytest.fixture(scope="module")
def minilm() -> ParameterCounts:
    return counts_of(BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536))


# Table 2's row for LadaBERT-2 (2.05, 2.0, 3.41) adds up to 24 M, not to its 22 M, so it is left out here.
@pytest.mark.parametrize(
    ("ratio", "embedding", "svd", "pruning", "millions"),
    [(2.5, 1.43, 2.0, 1.56, 44), (7.5, 5.0, 2.0, 4.33, 15), (10.0, 5.0, 2.5, 5.45, 11)],
)
def test_the_papers_table_2_solves_equation_7_for_bert_base(
    bert_base: ParameterCounts, ratio: float, embedding: float, svd: float, pruning: float, millions: float
) -> None:
    budget = BudgetRecipe(ratio=ratio, p_embedding=1 / embedding, p_embedding_svd=1 / embedding, p_svd=1 / svd)
    shares = solve_shares(bert_base, budget)
    assert shares["encoder"].mask_share == pytest.approx(1 / pruning, rel=0.04)
    kept = shares["embedding"].kept * bert_base.embedding + shares["encoder"].kept * bert_base.encoder
    assert kept + bert_base.left_alone == pytest.approx(millions * 1e6, rel=0.03)


@given(ratio=st.floats(1.5, 20), embedding=st.floats(0.01, 0.6), svd=st.floats(0.05, 1))
def test_solved_shares_fill_the_budget_exactly_or_are_refused(ratio: float, embedding: float, svd: float) -> None:
    counts = ParameterCounts(embedding=11_917_056, encoder=10_764_288, left_alone=32_642)
    budget = BudgetRecipe(ratio=ratio, p_embedding=embedding, p_embedding_svd=1.0, p_svd=svd)
    try:
        shares = solve_shares(counts, budget)
    except RecipeError as error:
        assert "budget.ratio" in str(error)  # noqa: PT017
        return
    kept = shares["embedding"].kept * counts.embedding + shares["encoder"].kept * counts.encoder
    assert kept + counts.left_alone == pytest.approx(counts.total / ratio)
    assert 0 < shares["encoder"].mask_share <= 1


@given(share=st.floats(0.02, 0.9))
def test_in_latency_mode_the_ratio_says_what_ranks_the_encoder_has(share: float) -> None:
    counts = ParameterCounts(embedding=11_917_056, encoder=10_764_288, left_alone=32_642)
    budget = BudgetRecipe(ratio=2.0, p_embedding=0.1, objective="latency")
    shares = solve_shares(counts, replace(budget, ratio=ratio_at(share, counts, budget)))
    assert shares["encoder"].svd == pytest.approx(share)
    assert shares["encoder"].mask_share == shares["embedding"].mask_share == 1


@pytest.mark.parametrize("name", bundled_recipes())
def test_every_recipe_can_be_met_on_minilm_and_on_bert_base(
    name: str, minilm: ParameterCounts, bert_base: ParameterCounts
) -> None:
    recipe = load_recipe(name)
    for counts in (minilm, bert_base):
        solve_shares(counts, recipe.budget)


@given(iterations=st.integers(1, 12), data=st.data())
def test_shares_only_fall_and_end_at_the_target(iterations: int, data: st.DataObject) -> None:
    factorise = data.draw(st.integers(1, iterations))
    schedule = ScheduleRecipe(
        iterations=iterations, factorise_iterations=factorise, epochs_per_iteration=0.1, final_epochs=1
    )
    counts = ParameterCounts(embedding=11_917_056, encoder=10_764_288, left_alone=32_642)
    target = solve_shares(counts, BudgetRecipe(ratio=10, p_embedding=0.1, p_embedding_svd=0.34, p_svd=0.4))
    path = [shares_at(iteration, target, schedule) for iteration in range(1, iterations + 1)]
    for earlier, later in pairwise(path):
        assert all(later[g].kept < earlier[g].kept and later[g].svd <= earlier[g].svd for g in target)
    for group, shares in target.items():
        assert path[-1][group].kept == pytest.approx(shares.kept)
        assert path[-1][group].svd == pytest.approx(shares.svd)


def test_a_budget_that_cannot_be_met_says_which_ratios_can(minilm: ParameterCounts) -> None:
    with pytest.raises(RecipeError, match=r"they allow ratios from \d+\.\d+ to below \d+\.\d+"):
        solve_shares(minilm, BudgetRecipe(ratio=10, p_embedding=0.5, p_embedding_svd=0.5, p_svd=0.4))
