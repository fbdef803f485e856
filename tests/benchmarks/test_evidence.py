"""Claims about the comparison of LadaBERT with its baselines, on a random two-layer BERT."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.__main__ import main
from benchmarks.evidence import running
from benchmarks.evidence.compare import FEWEST_STEPS
from benchmarks.evidence.contenders import OWN_RATE, PLAIN, all_runs, in_steps
from benchmarks.evidence.cuts import all_cuts
from benchmarks.evidence.page import draw, of, sections
from benchmarks.evidence.scratch import ScratchLearner, ScratchStudent, parameters_of, student_config
from benchmarks.harness.results import Results
from ladabert_compress.data.batches import Batch, EncodedTexts
from ladabert_compress.student.budget import ratio_at, solve_shares
from ladabert_compress.student.matrices import ParameterCounts
from ladabert_compress.training.distillation import Timetable
from tests.compression.conftest import tiny_config

pytestmark = pytest.mark.slow

MINILM = ParameterCounts(embedding=11_917_056, encoder=10_764_288, left_alone=32_642)
ROWS = ["--teacher", "teacher", "--train", "train.tsv", "--dev", "dev.tsv"]
COMMAND = ["evidence", *ROWS, "--work", "work", "--steps", "20"]


def test_every_contender_of_a_ratio_has_its_budget_steps_and_optimiser_settings() -> None:
    runs = all_runs(steps=400, seeds=2)
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        budget = run.recipe.budget
        shares = solve_shares(MINILM, budget)
        assert ratio_at(shares["encoder"].kept, MINILM, budget) == pytest.approx(budget.ratio)
        assert run.steps == (4000 if run.contender == "scratch-long" else 400)
    main_runs = [run for run in runs if run.contender != "plain-schedule" and not run.contender.endswith(OWN_RATE)]
    for ratio in PLAIN:
        settings = {run.recipe.training for run in main_runs if run.recipe.budget.ratio == ratio}
        assert len({replace(training, seed=0) for training in settings}) == 1


def test_single_methods_use_that_method_alone() -> None:
    for run in all_runs(steps=400, seeds=1):
        shares = solve_shares(MINILM, run.recipe.budget).values()
        if run.contender.startswith("pruning"):
            assert all(share.svd == 1 for share in shares)
        if run.contender.startswith("factorisation"):
            assert all(share.mask_share == 1 for share in shares)


@given(steps=st.integers(FEWEST_STEPS, 5000), epoch_steps=st.integers(1, 5000))
def test_every_schedule_lasts_exactly_the_steps_of_the_run(steps: int, epoch_steps: int) -> None:
    for run in all_runs(steps=400, seeds=1):
        schedule = in_steps(run.recipe.schedule, steps, epoch_steps)
        assert Timetable.of(schedule, epoch_steps).total_steps == steps


@given(share=st.floats(0.1, 0.9), heads=st.sampled_from([1, 2, 4]), layers=st.integers(1, 6))
def test_a_fresh_student_has_nearly_all_the_parameters_that_it_may_have(share: float, heads: int, layers: int) -> None:
    teacher = BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=128,
        max_position_embeddings=40,
    )
    budget = round(share * parameters_of(teacher))
    config = student_config(teacher, budget)
    own = ScratchStudent(config, 32).student_parameters()
    assert own == parameters_of(config)
    step = config.num_hidden_layers * (2 * config.hidden_size + 1)  # of one more neuron in every layer
    assert budget - step < own <= budget
    assert teacher.num_hidden_layers % config.num_hidden_layers == 0


def test_a_fresh_student_learns_the_layers_first_and_then_the_answers(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    learner = ScratchLearner(tiny_bert, 5000, total_steps=10, seed=0)
    optimiser = torch.optim.SGD(learner.module.parameters(), lr=0.1)
    batch = encoded.batch(range(4))
    learner.before_step(4, optimiser)
    assert learner.losses(batch).keys() == {"embedding", "attention", "hidden"}
    learner.before_step(5, optimiser)
    assert learner.losses(batch).keys() == {"prediction"}


def test_a_student_with_a_mapped_teacher_layer_learns_from_every_layer_it_skips_to(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    learner = ScratchLearner(tiny_bert, 5000, total_steps=10, seed=0)
    assert learner.module.config.num_hidden_layers == 1
    batch, before = encoded.batch(range(4)), learner.losses(encoded.batch(range(4)))
    with torch.no_grad():
        tiny_bert.get_parameter("bert.encoder.layer.1.output.dense.weight").add_(1.0)
    after = learner.losses(batch)
    assert after["hidden"] != before["hidden"]
    assert after["embedding"] == before["embedding"]


@pytest.fixture
def work(folder: Path, teacher_folder: Path) -> Path:
    """The work folder of a command that runs beside the teacher and the rows."""
    assert teacher_folder.parent == folder
    return folder / "work"


CHOSEN = ["ladabert-x10", "plain-x5", "pruning-x10", "factorisation-x10", "hybrid-x10", "scratch-x10", "cut-2"]


def test_the_command_trains_what_is_missing_and_gathers_what_is_there(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*COMMAND, "--only", *CHOSEN])
    results = Results.load(work / "evidence.json")
    outcomes = results.rows("outcomes")
    assert {f"{run['contender']}-x{run['ratio']:g}" for run in outcomes} | {"cut-2"} == set(CHOSEN)
    teacher = results.settings["teacher"]["parameters"]
    for run in outcomes:
        assert run["nonzero_parameters"] == pytest.approx(teacher / run["ratio"], rel=0.05)
        assert run["curve"] == [[20, run["accuracy"]]]
    assert results.values("cuts", "title") == [all_cuts()[1].title]
    assert not list(work.glob("*/"))  # no checkpoint is left

    capsys.readouterr()
    times = {path: path.stat().st_mtime_ns for path in work.glob("*-seed0.json")}
    main([*COMMAND, "--only", *CHOSEN])
    assert "8 of 8 runs are there already" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_two_runs_at_a_time_come_to_what_one_after_the_other_does(work: Path) -> None:
    only = ["--only", "pruning-x10", "scratch-x10"]
    main([*COMMAND, *only])
    alone = {path.name: _without_times(path.read_text(encoding="utf-8")) for path in work.glob("*-seed0.json")}
    main([*COMMAND, *only, "--jobs", "2", "--work", "both"])
    both = {path.name: _without_times(path.read_text(encoding="utf-8")) for path in Path("both").glob("*-seed0.json")}
    assert len(both) == 2
    assert both == alone


def test_a_run_that_broke_off_goes_on_from_its_checkpoint_to_the_same_end(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only = ["--only", "hybrid-x10"]
    main([*COMMAND, *only])
    whole = (work / "hybrid-x10-seed0.json").read_text(encoding="utf-8")
    (work / "hybrid-x10-seed0.json").unlink()

    left, losses = 9, running.LabelLearner.losses

    def stop_after_some(learner: running.LabelLearner, batch: Batch) -> dict[str, torch.Tensor]:
        nonlocal left
        left -= 1
        if left < 0:
            signal.raise_signal(signal.SIGINT)
        return losses(learner, batch)

    monkeypatch.setattr(running.LabelLearner, "losses", stop_after_some)
    assert main([*COMMAND, *only]) == 2
    assert "hybrid-x10-seed0: stopped after step 10 of 20" in capsys.readouterr().err
    left = 10  # ten of the twenty steps are in the checkpoint
    checkpoint = work / "hybrid-x10-seed0" / "checkpoint.pt"
    torch.save(torch.load(checkpoint, weights_only=True) | {"cpu_seconds": 1e6}, checkpoint)
    main([*COMMAND, *only])
    again = (work / "hybrid-x10-seed0.json").read_text(encoding="utf-8")
    assert _without_times(again) == _without_times(whole)
    assert json.loads(whole)["cpu_seconds"] < 1e6 < json.loads(again)["cpu_seconds"]


def _without_times(text: str) -> dict[str, object]:
    return {name: value for name, value in json.loads(text).items() if not name.endswith("seconds")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "--only nothing: no run's name begins so"),
        (["--steps", "5"], "--steps has to be 20 or more"),
        (["--teacher", "none"], "none/model.safetensors: No such file or directory"),
        (["--train", "none.tsv"], "none.tsv: No such file or directory"),
        (["--steps", "30", "--only", "hybrid-x10"], "hybrid-x10-seed0.json: was made with other steps"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    work.mkdir()
    (work / "hybrid-x10-seed0.json").write_text("{}", encoding="utf-8")
    assert main([*COMMAND, *arguments]) == 2
    assert message in capsys.readouterr().err


def made_up() -> Results:
    """LadaBERT, one baseline and the curves, made up."""
    teacher = {"name": "tiny", "parameters": 20_000_000, "accuracy": 0.9}
    origin = {"command": "made up", "commit": "0", "date": "2020-01-01", "machine": "none"}
    settings = {"steps": 100, "planned": 30, "train_rows": 1000, "dev_rows": 100, "teacher": teacher}
    results = Results("evidence", origin, settings)

    def add(contender: str, ratio: float, curve: list[tuple[int, float]], seed: int = 0) -> None:
        size = round(20_000_000 / ratio)
        results.add(
            "outcomes",
            contender=contender,
            ratio=ratio,
            seed=seed,
            learning_rate=1e-3,
            batch_size=64,
            accuracy=curve[-1][1],
            nonzero_parameters=size,
            full_size_from_step=40,
            cpu_seconds=60.0,
            losses={"hidden": 0.5, "prediction": 0.25},
            curve=curve,
        )

    add("ladabert", 10.0, [(100, 0.85)])
    add("ladabert", 10.0, [(100, 0.83)], seed=1)
    add("hybrid", 10.0, [(100, 0.80)])
    add("hybrid", 5.0, [(100, 0.80)])
    add("ladabert", 7.5, [(20, 0.89), (60, 0.82), (80, 0.85), (100, 0.86)])
    add("scratch-long", 7.5, [(500, 0.80), (900, 0.84), (1000, 0.83)])
    return results


def test_missing_runs_show_as_missing_and_claims_say_how_far_they_are_proved() -> None:
    evidence = sections(made_up())["evidence"]
    assert "| LadaBERT | – | – | 0.8600 (95.6) | 0.8400 ± 0.0141 (93.3) |" in evidence
    assert "| hybrid, no distillation | – | 0.8000 (88.9) | – | 0.8000 (88.9) |" in evidence
    assert "| hybrid, no distillation | – | – | – | +5.0 |" in evidence  # of the seed that both have
    assert "closest: hybrid, no distillation, +5.0 points | so far |" in evidence
    assert "×5: LadaBERT is at least as good as each of the 4 baselines | – | not measured |" in evidence


def test_a_baseline_counts_at_the_better_of_its_two_learning_rates() -> None:
    results = made_up()
    (run,) = of(results, "hybrid", 10.0)
    results.add("outcomes", **run | {"contender": "hybrid" + OWN_RATE, "accuracy": 0.82, "learning_rate": 1e-4})
    evidence = sections(results)["evidence"]
    assert "| hybrid, no distillation | – | 0.8000 (88.9) | – | 0.8200† (91.1) |" in evidence
    assert "| hybrid, no distillation | – | – | – | +3.0 |" in evidence


def test_a_student_that_is_not_yet_cut_to_its_size_has_reached_nothing() -> None:
    evidence = sections(made_up())["evidence"]
    assert "0.8400 at step 900; LadaBERT at step 80 (cut to its size at 40) | yes |" in evidence


def test_the_plots_show_every_contender_and_are_the_same_for_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.evidence.page.IMAGES", tmp_path)
    draw(made_up(), "-again")
    first = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.svg")}
    assert sorted(first) == ["evidence-curve-again.svg", "evidence-sizes-again.svg"]
    assert "hybrid, no distillation" in first["evidence-sizes-again.svg"]
    assert "cut to ×7.5" in first["evidence-curve-again.svg"]
    draw(made_up(), "-again")
    assert first == {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.svg")}


def test_a_lever_is_judged_by_the_seeds_that_both_have() -> None:
    results = made_up()
    (run, _) = of(results, "ladabert", 10.0)
    results.add("outcomes", **run | {"contender": "magnitude", "accuracy": 0.8})
    levers = sections(results)["levers"]
    assert '| `score = "magnitude"` | 0.800 | 5.0 | 0.500 | 0.250 |' in levers
    assert "| `best-x10` | 0.840 | – | 0.500 | 0.250 |" in levers


def test_the_tiny_teacher_has_the_sizes_that_equation_7_counts() -> None:
    """The closed formula of the fresh student's size holds for the teacher's shape, too."""
    config = tiny_config()
    model = BertForSequenceClassification(config)
    assert parameters_of(config) == sum(parameter.numel() for parameter in model.parameters())
