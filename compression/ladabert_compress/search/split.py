"""``ladabert-compress search``: the best split of the budget, by random search under equation 7 (section 3.3).

For a time it searches the student's shape in the place of the split.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pydantic import TypeAdapter
from tqdm import tqdm

from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import CheckpointError, DataError, OptionError, RecipeError
from ladabert_compress.files import cannot_be_written, write_text
from ladabert_compress.recipe import Recipe, to_toml
from ladabert_compress.search.latency import Timer, largest_within, onnx_timer
from ladabert_compress.search.space import Shapes, Space, Splits
from ladabert_compress.search.trial import TrialTask, become_worker, prepare, score_recipe
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.teacher.source import TeacherSource
from ladabert_compress.training.checkpoint import other_settings
from ladabert_compress.training.run import run_id

JOURNAL_FILE = "search.journal"
MOST_REFUSED = 30  # points in a row at which there is no student


@dataclass(frozen=True)
class SearchConfig:
    """How to search; ``recipe`` is what every trial shares, and ``target_latency_ms`` the time to fill, if any."""

    recipe: Recipe
    trials: int
    sampler: Literal["random", "tpe"]
    steps: int
    held_out_rows: int
    processes: int
    seed: int
    target_latency_ms: float | None = None


@dataclass(frozen=True)
class Found:
    """The best recipe, and every scored one from best to worst with its accuracy and what sets it apart."""

    recipe: Recipe
    scored: list[tuple[float, Recipe, str]]


def search(
    teacher_source: TeacherSource | Path,
    config: SearchConfig,
    texts: LabelledTexts,
    run_folder: Path,
    *,
    resume: bool = False,
    timer: Timer | None = None,
) -> Found:
    """Scores splits by a short distillation each, on training rows that none of them learns from.

    With a target for the latency it scores shapes instead, each with as many ranks as ``timer``, or else the fastest
    int8 graph on this machine, allows in that time.

    The journal in ``run_folder`` has every split that was scored. A search that was killed continues from it, and the
    splits that were under way are scored again. Random splits depend on seed and number alone.

    Raises:
        TeacherError: the teacher cannot be used.
        DataError: the rows' labels are not the teacher's.
        RecipeError: no split meets the ratio, or no shape the time.
        CheckpointError: there is a journal and ``resume`` is not set, or it is another search's, or the disk is full.
    """
    teacher = load_teacher(teacher_source)
    data = teacher.encode("--train", texts, config.recipe.training.max_length)
    task = prepare(teacher_source, data, config.steps, config.held_out_rows, config.recipe.training)
    if not len(task.held_out):
        raise DataError(f"--train: {len(data)} rows are too few to hold any out; ten at least")
    space = _space(teacher, config, task, timer or onnx_timer(texts.task, config.recipe.training.max_length, "int8"))
    run = run_id(config.recipe, teacher, task.train_data)
    target = config.target_latency_ms
    settings = f"{run} {config.sampler} {config.steps} {len(task.held_out)} {config.seed} {target}"
    journal = run_folder / JOURNAL_FILE
    try:
        study = _open_study(journal, hashlib.sha256(settings.encode()).hexdigest(), resume=resume)
        _repeat_unfinished(study)
        with _workers(config.processes, task) as executor:
            _run_trials(study, space, config, executor)
    except OSError as error:
        raise CheckpointError(cannot_be_written(journal, error)) from error
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    read = TypeAdapter(Recipe).validate_python
    recipes = [(trial.value or 0.0, read(trial.user_attrs["recipe"])) for trial in complete]
    scored = [(accuracy, recipe, space.describe(recipe)) for accuracy, recipe in recipes]
    scored.sort(key=lambda entry: -entry[0])
    return Found(scored[0][1], scored)


def _space(teacher: Teacher, config: SearchConfig, task: TrialTask, timer: Timer) -> Space:
    target_ms, model = config.target_latency_ms, teacher.model
    if target_ms is None:
        return Splits.of(model, config.recipe)
    if config.recipe.budget.objective != "latency":
        raise RecipeError("--target-latency-ms: needs a recipe with budget.objective = latency")
    return Shapes(
        model.config, config.recipe, lambda recipe: largest_within(target_ms, model, recipe, task.train_data, timer)
    )


def _open_study(journal: Path, settings: str, *, resume: bool) -> optuna.Study:
    if journal.is_file() and not resume:
        raise CheckpointError(
            f"{journal}: an earlier search left it; continue with --resume, or delete it to start anew"
        )
    journal.parent.mkdir(parents=True, exist_ok=True)
    if journal.is_file():
        _drop_torn_line(journal)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the progress bar says the same
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{journal}: cannot be read ({error}); delete it to start anew") from error
    if study.user_attrs.setdefault("settings", settings) != settings:
        raise other_settings(journal)
    study.set_user_attr("settings", settings)
    return study


def _drop_torn_line(journal: Path) -> None:
    """Cuts off the end of a line that a full disk or a kill left half written; Optuna cannot read it."""
    written = journal.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        os.truncate(journal, whole)


def _repeat_unfinished(study: optuna.Study) -> None:
    """Queues the splits that were under way when the search was killed."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _run_trials(study: optuna.Study, space: Space, config: SearchConfig, executor: Executor) -> None:
    """Keeps every worker busy until as many splits as asked for are scored."""
    running: dict[Future[float], tuple[optuna.Trial, Recipe]] = {}
    done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    with tqdm(total=config.trials, initial=min(done, config.trials), desc="search", unit="trial") as bar:
        while done < config.trials:
            while len(running) < min(config.processes, config.trials - done):
                trial, recipe = _draw(study, space, config)
                running[executor.submit(score_recipe, recipe)] = trial, recipe
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial, recipe = running.pop(future)
                try:
                    accuracy = future.result()
                except BrokenProcessPool as error:
                    raise CheckpointError(
                        "a process of the search was killed, perhaps because memory ran out; "
                        "continue with --resume and fewer --processes"
                    ) from error
                study.tell(trial, accuracy)
                done += 1
                bar.update()
                bar.set_postfix({"best": f"{study.best_value:.4f}"})
                tqdm.write(f"{space.describe(recipe)}: accuracy {accuracy:.4f}")


def _draw(study: optuna.Study, space: Space, config: SearchConfig) -> tuple[optuna.Trial, Recipe]:
    """The next point at which there is a student; the journal keeps its recipe."""
    reason = ""
    for _ in range(MOST_REFUSED):
        trial = _ask(study, config)
        try:
            recipe = space.draw(trial)
        except RecipeError as error:
            study.tell(trial, state=TrialState.FAIL)
            reason = str(error)
            continue
        trial.set_user_attr("recipe", recipe.to_dict())
        return trial, recipe
    raise RecipeError(f"{reason}; nor can any of the {MOST_REFUSED - 1} shapes drawn before it")


def _ask(study: optuna.Study, config: SearchConfig) -> optuna.Trial:
    seed = config.seed + len(study.get_trials(deepcopy=False))
    study.sampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if config.sampler == "random"
        else optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=5)
    )
    return study.ask()


@contextlib.contextmanager
def _workers(processes: int, task: TrialTask) -> Iterator[Executor]:
    """That many processes of one thread each, or this one."""
    executor: Executor
    if processes == 1:
        executor = ThreadPoolExecutor(1, initializer=become_worker, initargs=(task,))
    else:
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(processes, context, initializer=become_worker, initargs=(task, True))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def write_recipe(found: Found, config: SearchConfig, teacher_name: str, out: Path) -> None:
    """Writes the best recipe, with the best five scores as comments.

    Raises:
        OptionError: ``out`` cannot be written.
    """
    lines = [
        f"# Found by {config.sampler} search over {len(found.scored)} students of the teacher {teacher_name}, "
        f"{config.steps} steps each"
        + (":" if config.target_latency_ms is None else f", within {config.target_latency_ms:g} ms:"),
        "# accuracy on rows held out of train. The best:",
        *(f"#   {accuracy:.4f}  {description}" for accuracy, _, description in found.scored[:5]),
    ]
    try:
        write_text(out, "\n".join(lines) + "\n\n" + to_toml(found.recipe))
    except OSError as error:
        raise OptionError(f"--out: {out}: {error.strerror}") from error
