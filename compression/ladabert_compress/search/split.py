"""``ladabert-compress search``: the best split of the budget, by random search under equation 7 (section 3.3)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from tqdm import tqdm

from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import CheckpointError, DataError, OptionError, RecipeError
from ladabert_compress.files import cannot_be_written, write_text
from ladabert_compress.recipe import BudgetRecipe, Recipe
from ladabert_compress.search.space import Space
from ladabert_compress.search.trial import TrialTask, become_worker, prepare, score_recipe
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.teacher.folder import load_teacher
from ladabert_compress.teacher.source import TeacherSource
from ladabert_compress.training.checkpoint import other_settings
from ladabert_compress.training.run import run_id

JOURNAL_FILE = "search.journal"


@dataclass(frozen=True)
class SearchConfig:
    """How to search; ``recipe`` is what every trial shares."""

    recipe: Recipe
    trials: int
    sampler: Literal["random", "tpe"]
    steps: int
    held_out_rows: int
    processes: int
    seed: int


@dataclass(frozen=True)
class Found:
    """The best split, and every scored one from best to worst as (accuracy, budget)."""

    recipe: Recipe
    scored: list[tuple[float, BudgetRecipe]]


def search(
    teacher_source: TeacherSource | Path,
    config: SearchConfig,
    texts: LabelledTexts,
    run_folder: Path,
    *,
    resume: bool = False,
) -> Found:
    """Scores splits by a short distillation each, on training rows that none of them learns from.

    The journal in ``run_folder`` has every split that was scored. A search that was killed continues from it, and the
    splits that were under way are scored again. Random splits depend on seed and number alone.

    Raises:
        TeacherError: the teacher cannot be used.
        DataError: the rows' labels are not the teacher's.
        RecipeError: no split meets the ratio.
        CheckpointError: there is a journal and ``resume`` is not set, or it is another search's, or the disk is full.
    """
    for name in ("heads", "neurons"):
        if getattr(config.recipe.structure, name) < 1:
            raise RecipeError(f"structure.{name}: search splits the budget of whole layers; leave it out of --recipe")
    teacher = load_teacher(teacher_source)
    space = Space.of(count_parameters(teacher.model), config.recipe.budget)
    data = teacher.encode("--train", texts, config.recipe.training.max_length)
    task = prepare(teacher_source, data, config.steps, config.held_out_rows, config.recipe.training)
    if not len(task.held_out):
        raise DataError(f"--train: {len(data)} rows are too few to hold any out; ten at least")
    run = run_id(config.recipe, teacher, task.train_data)
    settings = f"{run} {config.sampler} {config.steps} {len(task.held_out)} {config.seed}"
    journal = run_folder / JOURNAL_FILE
    try:
        study = _open_study(journal, hashlib.sha256(settings.encode()).hexdigest(), resume=resume)
        _repeat_unfinished(study)
        with _workers(config.processes, task) as executor:
            _run_trials(study, space, config, executor)
    except OSError as error:
        raise CheckpointError(cannot_be_written(journal, error)) from error
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    scored = [(trial.value or 0.0, space.budget(**trial.params)) for trial in complete]
    scored.sort(key=lambda entry: -entry[0])
    return Found(replace(config.recipe, budget=scored[0][1]), scored)


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
        if len(trial.params) == 2:
            study.enqueue_trial(trial.params)


def _run_trials(study: optuna.Study, space: Space, config: SearchConfig, executor: Executor) -> None:
    """Keeps every worker busy until as many splits as asked for are scored."""
    running: dict[Future[float], optuna.Trial] = {}
    done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    with tqdm(total=config.trials, initial=min(done, config.trials), desc="search", unit="trial") as bar:
        while done < config.trials:
            while len(running) < min(config.processes, config.trials - done):
                trial = _ask(study, config)
                budget = space.budget(
                    trial.suggest_float("p_embedding", space.lowest_embedding, space.highest_embedding, log=True),
                    trial.suggest_float("factorisation_share", 0.0, 1.0),
                )
                running[executor.submit(score_recipe, replace(config.recipe, budget=budget))] = trial
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial = running.pop(future)
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
                tqdm.write(f"{space.describe(space.budget(**trial.params))}: accuracy {accuracy:.4f}")


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
    """Writes the best split as a recipe, with the best five scores as comments.

    Raises:
        OptionError: ``out`` cannot be written.
    """
    lines = [
        f"# Found by {config.sampler} search over {len(found.scored)} splits on the teacher {teacher_name}: "
        f"{config.steps} steps each,",
        "# accuracy on rows held out of train. The best:",
        *(
            f"#   {accuracy:.4f}  p_embedding {budget.p_embedding:.4f}, p_svd {budget.p_svd:.4f}"
            for accuracy, budget in found.scored[:5]
        ),
    ]
    for section, values in found.recipe.to_dict().items():
        lines += [
            "",
            f"[{section}]",
            *(f"{key} = {_toml(value)}" for key, value in values.items() if value is not None),
        ]
    try:
        write_text(out, "\n".join(lines) + "\n")
    except OSError as error:
        raise OptionError(f"--out: {out}: {error.strerror}") from error


def _toml(value: object) -> str:
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)
