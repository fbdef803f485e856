"""What the training rows show a teacher: which tokens occur, and how each linear layer's inputs vary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import Batch, EncodedTexts, sample_batches
from ladabert_compress.measure.inference import classify, removed_at_the_end
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.factors import InputMoments, rank_energies
from ladabert_compress.student.matrices import walk_matrices
from ladabert_compress.student.structure import Shaped, narrow

SAMPLE_BATCHES = 32


@dataclass(frozen=True)
class Statistics:
    """What the training rows show; empty where the recipe does not use it.

    Attributes:
        moments: of a linear layer's inputs, by layer.
        row_weights: (rows,) by embedding table.
        energies: by matrix, what each rank saves of the error, largest first. The error of a linear layer's output is
            weighted by E[g²] of its gradient, which makes it the loss to second order; the tables have no such weight.
    """

    moments: dict[str, InputMoments]
    row_weights: dict[str, Tensor]
    energies: dict[str, Tensor]


def narrow_and_observe(
    teacher: BertForSequenceClassification, data: EncodedTexts, recipe: Recipe
) -> tuple[Shaped, Statistics]:
    """A copy of the teacher with the recipe's layers, heads and neurons, and what training rows show of that copy.

    Both are functions of the arguments alone, so that a run can resume.
    """
    seed, power = recipe.training.seed, recipe.pruning.embedding_frequency_power
    batches = [batch.to(teacher.device) for batch in sample_batches(data, SAMPLE_BATCHES, seed)]
    shaped = narrow(teacher, recipe.structure, lambda model: input_moments(model, batches))
    model = shaped.model
    moments = input_moments(model, batches) if recipe.factorisation.error == "outputs" else {}
    counts = count_embedding_rows(model, data) if power else {}
    row_weights = {name: (1.0 + count).pow(power).to(model.device) for name, count in counts.items()}
    energies: dict[str, Tensor] = {}
    if recipe.factorisation.ranks == "sensitivity":
        gradients = squared_output_gradients(model, batches, seed=seed)
        for matrix, module in walk_matrices(model):
            weights = row_weights.get(matrix.name) if matrix.group == "embedding" else gradients[matrix.name]
            energies[matrix.name] = rank_energies(module.weight, moments.get(matrix.name), weights)
    return shaped, Statistics(moments, row_weights, energies)


def count_embedding_rows(model: BertForSequenceClassification, data: EncodedTexts) -> dict[str, Tensor]:
    """How often each row of the word and the position table is read in one pass over the rows."""
    embeddings = model.bert.embeddings
    tokens = torch.from_numpy(data.token_ids)
    positions = torch.arange(len(tokens)) - torch.from_numpy(np.repeat(data.bounds[:-1], data.lengths))
    return {
        "bert.embeddings.word_embeddings": torch.bincount(tokens, minlength=embeddings.word_embeddings.num_embeddings),
        "bert.embeddings.position_embeddings": torch.bincount(
            positions, minlength=embeddings.position_embeddings.num_embeddings
        ),
    }


@torch.no_grad()
def input_moments(model: BertForSequenceClassification, batches: Iterable[Batch]) -> dict[str, InputMoments]:
    """The moments of the inputs of every linear layer; layers that read the same tensor share one."""
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}
    seen: dict[int, str] = {}
    source: dict[str, str] = {}
    token_mask: list[Tensor] = []

    def watch(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        name, inputs = names[module], arguments[0]
        source[name] = seen.setdefault(id(inputs), name)
        if source[name] != name:
            return
        kept.append(inputs)  # alive until the batch ends, so that no other tensor gets its id
        rows = inputs[token_mask[0]] if inputs.ndim == 3 else inputs
        total, square, count = sums.get(name, (0, 0, 0))
        sums[name] = total + rows.double().sum(dim=0), square + (rows.T @ rows).double(), count + len(rows)

    names: dict[nn.Module, str] = {m: name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    kept: list[Tensor] = []
    model.eval()
    with removed_at_the_end(module.register_forward_pre_hook(watch) for module in names):
        for batch in batches:
            token_mask[:] = [batch.attention_mask.bool()]
            classify(model, batch)
            seen.clear()
            kept.clear()
    moments = {name: InputMoments(total / count, square / count) for name, (total, square, count) in sums.items()}
    return {name: moments[first] for name, first in source.items()}


def squared_output_gradients(
    model: BertForSequenceClassification, batches: Iterable[Batch], *, seed: int
) -> dict[str, Tensor]:
    """The sum of g² (out_features,) of the loss's gradients g at every linear layer's outputs, float64.

    Labels are drawn from the model's own predictions (the true Fisher information, not the empirical one), because a
    teacher that fits its rows has hardly any gradient at their labels.
    """
    sums: dict[str, Tensor] = {}

    def watch(name: str, _: nn.Module, __: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> None:
        squared = gradients[0].double().square().flatten(end_dim=-2).sum(dim=0)
        sums[name] = sums[name] + squared if name in sums else squared

    hooks = (
        module.register_full_backward_hook(partial(watch, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    )
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    with removed_at_the_end(hooks):
        for batch in batches:
            _loss_at_drawn_labels(classify(model, batch), batch.problem_type, generator).backward()
    model.zero_grad()
    return sums


def _loss_at_drawn_labels(logits: Tensor, problem_type: str, generator: torch.Generator) -> Tensor:
    """The summed loss of logits (B, labels) at labels drawn as the logits say: one a row, or a yes or no for each.

    A regression's scores are drawn from a normal distribution of variance 1 around the logit.
    """
    if problem_type == "regression":
        drawn = logits.detach() + torch.randn(logits.shape, generator=generator).to(logits.device)
        return nn.functional.mse_loss(logits, drawn, reduction="sum") / 2
    if problem_type == "multi_label":
        flags = torch.bernoulli(logits.detach().sigmoid().cpu(), generator=generator)
        return nn.functional.binary_cross_entropy_with_logits(logits, flags.to(logits.device), reduction="sum")
    labels = torch.multinomial(logits.detach().softmax(dim=-1).cpu(), 1, generator=generator).squeeze(1)
    return nn.functional.cross_entropy(logits, labels.to(logits.device), reduction="sum")
