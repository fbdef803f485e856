from pathlib import Path

import pytest

from ladabert_compress.errors import RecipeError
from ladabert_compress.recipe import (
    DistillationRecipe,
    FactorisationRecipe,
    PruningRecipe,
    StructureRecipe,
    bundled_recipes,
    default_recipe,
    load_recipe,
    recipe_choices,
    recipe_fields,
)
from ladabert_compress.training.distillation import Timetable
from tests.compression.conftest import TINY_RECIPE


def test_there_is_a_plain_and_a_better_recipe_for_each_of_the_papers_four_ratios() -> None:
    assert {name: load_recipe(name).budget.ratio for name in bundled_recipes()} == {
        "ladabert-1": 2.5,
        "ladabert-2": 5.0,
        "ladabert-3": 7.5,
        "ladabert-4": 10.0,
        "best-x2.5": 2.5,
        "best-x5": 5.0,
        "best-x7.5": 7.5,
        "best-x10": 10.0,
        "latency-x7": 7.0,
        "latency-x4.7": 4.69,
    }


def test_the_papers_recipes_use_nothing_that_the_paper_does_not_have() -> None:
    for name in bundled_recipes():
        recipe = load_recipe(name)
        if name.startswith("ladabert"):
            assert recipe.factorisation == FactorisationRecipe()
            assert recipe.structure == StructureRecipe()
            assert recipe.pruning == PruningRecipe()
            assert recipe.distillation == DistillationRecipe()
            assert recipe.budget.objective == "size"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ratio = 4.0", "ratio = 0.5", "budget.ratio: Input should be greater than 1"),
        ("ratio = 4.0", "rate = 4.0", "budget.ratio: Field required"),
        ("iterations = 3", "iterations = 3\npatience = 2", "schedule.patience: Unexpected keyword argument"),
        ("p_embedding = 0.2", "p_embedding = 0.8", "budget.p_embedding: 0.8 is over its limit of 0.5"),
        ("factorise_iterations = 2", "factorise_iterations = 4", "schedule.factorise_iterations: 4 is over its limit"),
        ("[budget]", "[budget", "not TOML"),
        ("[budget]", '[budget]\nobjective = "latency"', "leave them out with objective = latency"),
        ("[training]", "[structure]\nrank_multiple = 16\n[training]", "structure.rank_multiple: leave it out"),
        ("[training]", "[structure]\nheads = 0.0\n[training]", "structure.heads: Input should be greater than 0"),
        ("[budget]", '[budget]\nobjective = "speed"', "budget.objective: Input should be 'size' or 'latency'"),
        (
            "[budget]",
            '[pruning]\nscore = "fisher"\nencoder_right_over_left = 2.0\n[budget]',
            "pruning.encoder_right_over_left: nothing reads it with pruning.score = fisher; leave it out",
        ),
        (
            "[budget]",
            "[pruning]\nembedding_frequency_power = 0.5\nembedding_right_over_left = 2.0\n[budget]",
            "pruning.embedding_right_over_left: nothing reads it with pruning.embedding_frequency_power over 0",
        ),
        (
            "p_embedding_svd = 0.5\np_svd = 0.4",
            'objective = "latency"\n[pruning]\nscore = "fisher"',
            "pruning.score: nothing reads it with budget.objective = latency",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_says_which_key_and_why(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(TINY_RECIPE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_recipe_is_read_by_its_name_wherever_the_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("best-x5").budget.ratio == 5
    assert load_recipe("best-x5", {"budget.ratio": 6.0}).budget.ratio == 6
    with pytest.raises(RecipeError, match=r"^best-x5: budget.ratio: Input should be greater than 1"):
        load_recipe("best-x5", {"budget.ratio": 0.5})
    with pytest.raises(RecipeError, match=r"^best-x6: No such file or directory; name a file or one of best-x2.5, "):
        load_recipe("best-x6")


def test_a_file_of_a_bundled_recipes_name_is_read_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("best-x5").write_text(TINY_RECIPE, encoding="utf-8")
    assert load_recipe("./best-x5").budget.ratio == 4


@pytest.mark.parametrize(
    ("ratio", "target_latency_ms", "name"),
    [
        (None, None, "best-x5"),
        (2.0, None, "best-x2.5"),
        (4.0, None, "best-x5"),
        (6.0, None, "best-x5"),
        (8.0, None, "best-x7.5"),
        (30.0, None, "best-x10"),
        (-1.0, None, "best-x5"),
        (None, 2.0, "latency-x4.7"),
        (8.0, 2.0, "latency-x4.7"),
    ],
)
def test_a_run_that_names_no_recipe_takes_the_one_for_its_ratio_or_time(
    ratio: float | None, target_latency_ms: float | None, name: str
) -> None:
    assert default_recipe(ratio, target_latency_ms) == name


def test_a_key_of_few_words_has_them_as_choices() -> None:
    assert recipe_choices("budget.objective") == ("size", "latency")
    assert recipe_choices("budget.ratio") is None


def test_overrides_replace_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(TINY_RECIPE, encoding="utf-8")
    recipe = load_recipe(path, {"budget.ratio": 3.0, "distillation.temperature": 2.0})
    assert recipe.budget.ratio == 3.0
    assert recipe.distillation.temperature == 2.0


def test_the_epochs_of_a_run_are_shared_out_as_before(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(TINY_RECIPE, encoding="utf-8")
    schedule = load_recipe(path).with_total_epochs(8.0).schedule
    assert schedule.total_epochs == pytest.approx(8.0)
    assert schedule.final_epochs == pytest.approx(2 * schedule.epochs_per_iteration)


@pytest.mark.parametrize("epoch_steps", [3, 10, 57, 1000])
def test_few_training_rows_are_passed_over_until_the_steps_asked_for_are_made(epoch_steps: int, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(TINY_RECIPE, encoding="utf-8")
    asked = load_recipe(path, {"schedule.min_steps": 300})
    plain = Timetable.of(load_recipe(path).schedule, epoch_steps)
    stretched = Timetable.of(asked.schedule, epoch_steps)
    assert stretched.total_steps == pytest.approx(max(plain.total_steps, 300), abs=asked.schedule.iterations)
    assert len(stretched.starts) == len(plain.starts)
    assert Timetable.of(asked.with_total_epochs(1.0).schedule, epoch_steps).total_steps == pytest.approx(
        epoch_steps, abs=2
    )


def test_every_field_of_a_recipe_is_described() -> None:
    assert all(description for _, _, description in recipe_fields())
    names = [name.partition(".")[2] for name, _, _ in recipe_fields()]
    assert len(set(names)) == len(names)  # they share one command line
