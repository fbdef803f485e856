"""Finds the largest student that answers within a time: graphs are built and timed, none is trained."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import BertForSequenceClassification

from compression.batches import Batch
from compression.bert_graph import build_bert_graph
from compression.budget import ratio_at, solve_shares
from compression.errors import RecipeError
from compression.files import write_text
from compression.matrices import count_parameters, walk_matrices
from compression.onnx_session import OnnxSession
from compression.quantise import calibrate
from compression.ranks import least_share
from compression.recipe import Recipe
from compression.structure import narrow, set_activation
from compression.student import Student
from compression.timing import measure_latency

# What is timed: one text of 64 tokens, or of the student's limit where that is less, on one thread.
TIMED_SHAPE = (1, 64)
TIMED_REPEATS = 50
# The largest share that the encoder may keep, and how near to the largest that is fast enough the search comes.
LARGEST_SHARE, SHARE_STEP = 0.99, 0.005

Timer = Callable[[BertForSequenceClassification], float]


def largest_within(target_ms: float, teacher: BertForSequenceClassification, recipe: Recipe, timer: Timer) -> Recipe:
    """The recipe with the smallest ratio whose student takes at most ``target_ms``, by bisection.

    Args:
        target_ms: the time allowed, as ``timer`` measures it.
        teacher: its shapes count; its weights do not.
        recipe: the objective must be ``latency``; its ratio is replaced.
        timer: milliseconds of a student.

    Raises:
        RecipeError: the objective is another, or even the smallest student takes longer.
    """
    if recipe.budget.objective != "latency":
        raise RecipeError("--target-latency-ms: needs a recipe with budget.objective = latency")
    shaped = narrow(teacher, recipe.structure, {}).model
    set_activation(shaped, recipe.structure)
    counts, parameters = count_parameters(shaped), count_parameters(teacher).total
    encoder = [matrix for matrix, _ in walk_matrices(shaped) if matrix.group == "encoder"]
    multiple = recipe.structure.rank_multiple

    def recipe_at(share: float) -> Recipe:
        ratio = ratio_at(share, counts, recipe.budget, parameters)
        if ratio <= 1:
            raise RecipeError(f"budget.p_embedding: {recipe.budget.p_embedding:g} leaves nothing to compress")
        return replace(recipe, budget=replace(recipe.budget, ratio=ratio))

    def milliseconds(share: float) -> float:
        candidate = recipe_at(share)
        student = Student(copy.deepcopy(shaped))
        student.cut_at_random(solve_shares(counts, candidate.budget, parameters), multiple)
        taken = timer(student.model)
        tqdm.write(f"×{candidate.budget.ratio:.2f}: {taken:.3f} ms")
        return taken

    low, high = least_share(encoder, multiple), LARGEST_SHARE
    if milliseconds(high) <= target_ms:
        return recipe_at(high)
    if (fastest := milliseconds(low)) > target_ms:
        raise RecipeError(
            f"--target-latency-ms: {target_ms:g} cannot be met: the smallest student takes {fastest:.3f} ms"
        )
    while high - low > SHARE_STEP:
        middle = (low + high) / 2
        if milliseconds(middle) <= target_ms:
            low = middle
        else:
            high = middle
    return recipe_at(low)


def onnx_timer(task: str, max_length: int, precision: str) -> Timer:
    """Times a student's exported graph in ONNX Runtime: the median of 50 runs of one text on one thread."""
    shape = (TIMED_SHAPE[0], min(TIMED_SHAPE[1], max_length))

    def milliseconds(model: BertForSequenceClassification) -> float:
        ids = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
        batch = Batch(ids, torch.ones_like(ids), torch.zeros_like(ids), ids[:, 0])
        ranges = calibrate(model, [batch]) if precision == "int8" else None
        session = OnnxSession(build_bert_graph(model, task, ranges).SerializeToString())
        table = measure_latency({precision: session}, max_length, shapes=(shape,), repeats=TIMED_REPEATS)
        return float(table[0]["median_ms"])

    return milliseconds


def remember(recipe: Recipe, file: Path) -> None:
    """Keeps the ratio that was found, because a resumed run that timed again would find another."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"ratio": recipe.budget.ratio}) + "\n")


def recall(recipe: Recipe, file: Path) -> Recipe:
    """The recipe with the ratio that :func:`remember` wrote.

    Raises:
        RecipeError: the file is not what it wrote.
    """
    try:
        ratio = float(json.loads(file.read_text(encoding="utf-8"))["ratio"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{file}: cannot be read ({error}); delete it to measure anew") from error
    return replace(recipe, budget=replace(recipe.budget, ratio=ratio))
