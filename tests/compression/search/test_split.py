from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.cli.main import main
from ladabert_compress.errors import CheckpointError, DataError, RecipeError
from ladabert_compress.recipe import BudgetRecipe, Recipe, StructureRecipe, load_recipe
from ladabert_compress.search import split as search_module
from ladabert_compress.search.space import Space
from ladabert_compress.search.split import SearchConfig, search, write_recipe
from ladabert_compress.search.trial import score_recipe
from ladabert_compress.student.budget import solve_shares
from ladabert_compress.student.matrices import ParameterCounts
from tests.compression.conftest import TINY_RECIPE, labelled_texts

pytestmark = pytest.mark.slow

MINILM = ParameterCounts(embedding=11_917_056, encoder=10_764_288, left_alone=32_642)


def config(recipe: Recipe, **changes: object) -> SearchConfig:
    values: dict[str, object] = {
        "recipe": recipe,
        "trials": 3,
        "sampler": "random",
        "steps": 4,
        "held_out_rows": 10,
        "processes": 1,
        "seed": 0,
    }
    return SearchConfig(**(values | changes))  # type: ignore[arg-type]


@given(ratio=st.floats(1.1, 60), embedding=st.floats(0, 1), share=st.floats(0, 1))
def test_every_point_of_the_space_meets_equation_7(ratio: float, embedding: float, share: float) -> None:
    space = Space.of(MINILM, BudgetRecipe(ratio=ratio, p_embedding=0.1, p_embedding_svd=0.34, p_svd=0.4))
    p_embedding = space.lowest_embedding ** (1 - embedding) * space.highest_embedding**embedding
    budget = space.budget(min(max(p_embedding, space.lowest_embedding), space.highest_embedding), share)
    assert budget.p_embedding <= budget.p_embedding_svd
    shares = solve_shares(MINILM, budget)
    kept = shares["embedding"].kept * MINILM.embedding + shares["encoder"].kept * MINILM.encoder
    assert kept + MINILM.left_alone == pytest.approx(MINILM.total / ratio)


def test_the_ends_of_the_space_are_pruning_alone_and_factorisation_alone() -> None:
    space = Space.of(MINILM, BudgetRecipe(ratio=10, p_embedding=0.1, p_embedding_svd=0.34, p_svd=0.4))
    assert space.budget(0.1, 0.0).p_svd == 1
    assert solve_shares(MINILM, space.budget(0.1, 1.0))["encoder"].mask_share == pytest.approx(1)
    assert space.budget(0.1, 0.5).p_embedding_svd == pytest.approx(0.34)


def test_a_ratio_that_no_split_meets_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"budget.ratio: 300 cannot be met on this teacher .* to \d+\.\d can"):
        Space.of(MINILM, BudgetRecipe(ratio=300, p_embedding=0.1, p_embedding_svd=0.34, p_svd=0.4))


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_killed_search_goes_on_with_the_split_that_was_under_way(
    sampler: str, teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = labelled_texts(120)
    whole = search(teacher_folder, config(tiny_recipe, sampler=sampler), texts, tmp_path / "whole")
    seen: list[float] = []

    def die_at_the_second(recipe: Recipe) -> float:
        seen.append(recipe.budget.p_embedding)
        if len(seen) == 2:
            raise KilledError
        return score_recipe(recipe)

    with monkeypatch.context() as patched:
        patched.setattr(search_module, "score_recipe", die_at_the_second)
        with pytest.raises(KilledError):
            search(teacher_folder, config(tiny_recipe, sampler=sampler), texts, tmp_path / "killed")
    with pytest.raises(CheckpointError, match="continue with --resume"):
        search(teacher_folder, config(tiny_recipe, sampler=sampler), texts, tmp_path / "killed")
    with pytest.raises(CheckpointError, match="other settings"):
        search(teacher_folder, config(tiny_recipe, steps=5), texts, tmp_path / "killed", resume=True)
    resumed = search(teacher_folder, config(tiny_recipe, sampler=sampler), texts, tmp_path / "killed", resume=True)
    assert len(resumed.scored) == len(whole.scored) == 3
    assert seen[1] in {budget.p_embedding for _, budget in resumed.scored}
    again = search(teacher_folder, config(tiny_recipe, sampler=sampler), texts, tmp_path / "killed", resume=True)
    assert again == resumed


def test_two_processes_score_as_one_does(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    texts = labelled_texts(120)
    one = search(teacher_folder, config(tiny_recipe, trials=2), texts, tmp_path / "one")
    two = search(teacher_folder, config(tiny_recipe, trials=2, processes=2), texts, tmp_path / "two")
    assert {budget.p_embedding for _, budget in one.scored} == {budget.p_embedding for _, budget in two.scored}
    assert sorted(accuracy for accuracy, _ in one.scored) == pytest.approx(
        sorted(accuracy for accuracy, _ in two.scored), abs=0.11
    )


def test_the_best_split_is_written_as_a_recipe(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    settings = config(tiny_recipe)
    found = search(teacher_folder, settings, labelled_texts(120), tmp_path / "run")
    assert found.scored[0][0] == max(accuracy for accuracy, _ in found.scored)
    write_recipe(found, settings, "tiny", tmp_path / "found.toml")
    assert load_recipe(tmp_path / "found.toml") == found.recipe
    assert found.recipe.schedule == tiny_recipe.schedule


def test_too_few_rows_to_hold_any_out_are_refused(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="9 rows are too few"):
        search(teacher_folder, config(tiny_recipe), labelled_texts(9), tmp_path / "run")


@pytest.mark.parametrize("name", ["heads", "neurons"])
def test_a_structure_other_than_the_teachers_is_refused(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path, name: str
) -> None:
    narrow = replace(tiny_recipe, structure=StructureRecipe(**{name: 0.5}))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=rf"structure\.{name}: search splits the budget of whole layers"):
        search(teacher_folder, config(narrow), labelled_texts(120), tmp_path / "run")


def test_search_is_a_command(
    teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = labelled_texts(120)
    lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in zip(texts.texts, texts.labels, strict=True))]
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    options = [
        "--train",
        "train.tsv",
        "--recipe",
        "tiny.toml",
        "--ratio",
        "3",
        "--processes",
        "1",
        "--out",
        "found.toml",
    ]
    main(["search", "--teacher", str(teacher_folder), "--trials", "2", "--steps", "3", *options])
    assert "found.toml: accuracy" in capsys.readouterr().out
    assert load_recipe(tmp_path / "found.toml").budget.ratio == 3
    with pytest.raises(SystemExit):
        main(["search", "--teacher", str(teacher_folder), *options])
    assert "found.toml: exists already" in capsys.readouterr().err
