from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertForSequenceClassification

from ladabert_compress.cli.main import main
from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.errors import CheckpointError, DataError, RecipeError
from ladabert_compress.recipe import BudgetRecipe, Recipe, StructureRecipe, load_recipe
from ladabert_compress.search import split as search_module
from ladabert_compress.search.plan import random_student
from ladabert_compress.search.space import Splits
from ladabert_compress.search.split import SearchConfig, search, write_recipe
from ladabert_compress.search.trial import score_recipe
from ladabert_compress.student.budget import solve_shares
from ladabert_compress.student.matrices import ParameterCounts
from ladabert_compress.teacher.folder import load_teacher
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import make_optimiser
from tests.compression.conftest import TINY_RECIPE, labelled_texts

pytestmark = pytest.mark.slow

MINILM = ParameterCounts(embedding=11_917_056, encoder=10_764_288, left_alone=32_642)
LATENCY = TINY_RECIPE.replace("p_embedding_svd = 0.5\np_svd = 0.4", 'objective = "latency"')


def splits(ratio: float) -> Splits:
    budget = BudgetRecipe(ratio=ratio, p_embedding=0.1, p_embedding_svd=0.34, p_svd=0.4)
    return Splits.between(MINILM, MINILM.total, replace(load_recipe("ladabert-4"), budget=budget))


@pytest.fixture
def latency_recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "latency.toml").write_text(LATENCY, encoding="utf-8")
    return load_recipe(tmp_path / "latency.toml")


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
    space = splits(ratio)
    p_embedding = space.lowest_embedding ** (1 - embedding) * space.highest_embedding**embedding
    budget = space.budget(min(max(p_embedding, space.lowest_embedding), space.highest_embedding), share)
    assert budget.p_embedding <= budget.p_embedding_svd
    shares = solve_shares(MINILM, budget)
    kept = shares["embedding"].kept * MINILM.embedding + shares["encoder"].kept * MINILM.encoder
    assert kept + MINILM.left_alone == pytest.approx(MINILM.total / ratio)


def test_the_ends_of_the_space_are_pruning_alone_and_factorisation_alone() -> None:
    space = splits(10)
    assert space.budget(0.1, 0.0).p_svd == 1
    assert solve_shares(MINILM, space.budget(0.1, 1.0))["encoder"].mask_share == pytest.approx(1)
    assert space.budget(0.1, 0.5).p_embedding_svd == pytest.approx(0.34)


def test_a_ratio_that_no_split_meets_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"budget.ratio: 300 cannot be met on this teacher .* to \d+\.\d can"):
        splits(300)


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
    assert seen[1] in {recipe.budget.p_embedding for _, recipe, _ in resumed.scored}
    again = search(teacher_folder, config(tiny_recipe, sampler=sampler), texts, tmp_path / "killed", resume=True)
    assert again == resumed


def test_two_processes_score_as_one_does(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    texts = labelled_texts(120)
    one = search(teacher_folder, config(tiny_recipe, trials=2), texts, tmp_path / "one")
    two = search(teacher_folder, config(tiny_recipe, trials=2, processes=2), texts, tmp_path / "two")
    assert {text for *_, text in one.scored} == {text for *_, text in two.scored}
    assert sorted(accuracy for accuracy, *_ in one.scored) == pytest.approx(
        sorted(accuracy for accuracy, *_ in two.scored), abs=0.11
    )


def test_the_best_split_is_written_as_a_recipe(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    settings = config(tiny_recipe)
    found = search(teacher_folder, settings, labelled_texts(120), tmp_path / "run")
    assert found.scored[0][0] == max(accuracy for accuracy, *_ in found.scored)
    write_recipe(found, settings, "tiny", tmp_path / "found.toml")
    assert load_recipe(tmp_path / "found.toml") == found.recipe
    assert found.recipe.schedule == tiny_recipe.schedule


def test_too_few_rows_to_hold_any_out_are_refused(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="9 rows are too few"):
        search(teacher_folder, config(tiny_recipe), labelled_texts(9), tmp_path / "run")


def test_the_split_of_a_narrower_student_counts_what_is_left_of_the_teacher(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    narrow = replace(tiny_recipe, structure=StructureRecipe(layers=0.5, heads=0.5, neurons=0.5))
    found = search(teacher_folder, config(narrow, trials=1), labelled_texts(120), tmp_path / "run")
    teacher = load_teacher(teacher_folder).model
    learner = LadaBertLearner(teacher, found.recipe, 5, encode_rows(teacher_folder))
    for step in learner.timetable.starts:
        learner.before_step(step, make_optimiser(learner.module, found.recipe.training))
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.05)


def encode_rows(teacher_folder: Path) -> EncodedTexts:
    return load_teacher(teacher_folder).encode("--train", labelled_texts(40), 32)


def test_a_recipe_for_latency_has_nothing_but_the_embeddings_share_to_search(
    teacher_folder: Path, latency_recipe: Recipe, tmp_path: Path
) -> None:
    settings = config(latency_recipe)
    found = search(teacher_folder, settings, labelled_texts(120), tmp_path / "run")
    budgets = [recipe.budget for _, recipe, _ in found.scored]
    assert len({budget.p_embedding for budget in budgets}) == 3
    assert {replace(budget, p_embedding=0.2) for budget in budgets} == {latency_recipe.budget}
    write_recipe(found, settings, "tiny", tmp_path / "found.toml")
    assert load_recipe(tmp_path / "found.toml") == found.recipe


def thousands(model: BertForSequenceClassification) -> float:
    """A stand-in for a clock: a thousandth of a millisecond for each parameter."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1000


def test_for_a_time_depth_heads_and_neurons_are_searched_and_ranks_fill_it(
    teacher_folder: Path, latency_recipe: Recipe, tmp_path: Path
) -> None:
    settings, texts = config(latency_recipe, trials=5, target_latency_ms=8.0), labelled_texts(120)
    found = search(teacher_folder, settings, texts, tmp_path / "run", timer=thousands)
    shapes = [recipe.structure for _, recipe, _ in found.scored]
    assert {shape.layers for shape in shapes} == {0.5, 1.0}
    assert len({shape.heads for shape in shapes}) > 1
    assert len({shape.neurons for shape in shapes}) > 1
    teacher = load_teacher(teacher_folder).model
    for _, recipe, text in found.scored:
        student, _ = random_student(teacher, recipe, None)
        layers, heads, neurons = (int(part.split()[0]) for part in text.split(", ")[:3])
        encoder = student.model.bert.encoder
        assert len(encoder.layer) == layers
        assert f"{heads} heads" in text
        assert student.model.config.intermediate_size == neurons
        assert 6.0 < thousands(student.model) <= 8.05 or layers == 1  # one layer may be faster than the time allows
    write_recipe(found, settings, "tiny", tmp_path / "found.toml")
    assert load_recipe(tmp_path / "found.toml") == found.recipe
    assert "within 8 ms:" in (tmp_path / "found.toml").read_text(encoding="utf-8")
    with pytest.raises(CheckpointError, match="other settings"):
        search(teacher_folder, config(latency_recipe), texts, tmp_path / "run", resume=True)


def test_a_shape_that_is_too_slow_is_left_out_and_a_time_that_none_meets_is_refused(
    teacher_folder: Path, latency_recipe: Recipe, tmp_path: Path
) -> None:
    def one_layer_alone(model: BertForSequenceClassification) -> float:
        return 1.0 if model.config.num_hidden_layers == 1 else 3.0

    settings = config(latency_recipe, target_latency_ms=2.0)
    found = search(teacher_folder, settings, labelled_texts(120), tmp_path / "run", timer=one_layer_alone)
    assert {recipe.structure.layers for _, recipe, _ in found.scored} == {0.5}
    settings = config(latency_recipe, target_latency_ms=0.5)
    with pytest.raises(RecipeError, match=r"0\.5 cannot be met: the smallest student takes .* of the 29 shapes"):
        search(teacher_folder, settings, labelled_texts(120), tmp_path / "none", timer=one_layer_alone)


def test_a_time_needs_a_recipe_for_latency(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--target-latency-ms: needs a recipe with budget\.objective = latency"):
        search(teacher_folder, config(tiny_recipe, target_latency_ms=2.0), labelled_texts(120), tmp_path / "run")


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
