"""The LadaBERT run: shrink a little, distil, repeat (section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import Batch, EncodedTexts
from ladabert_compress.measure.inference import forward
from ladabert_compress.recipe import DistillationRecipe, Recipe, ScheduleRecipe
from ladabert_compress.student.budget import Shares, shares_at, solve_shares
from ladabert_compress.student.masks import apply_masks, mask_gradients
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.student.moments import narrow_and_observe
from ladabert_compress.student.structure import set_activation
from ladabert_compress.student.student import Student
from ladabert_compress.training.loop import set_dropout
from ladabert_compress.training.losses import (
    attention_mse,
    masked_mse,
    relation_divergence,
    score_mse,
    soft_binary_cross_entropy,
    soft_cross_entropy,
)
from ladabert_compress.training.processes import ALONE, Processes

PREDICTION_LOSSES = {
    "single_label": soft_cross_entropy,
    "multi_label": soft_binary_cross_entropy,
    "regression": score_mse,
}
# What the losses compare, layer by layer.
LAYERS = {"output_hidden_states": True, "output_attentions": True}


@dataclass(frozen=True)
class Timetable:
    """At which step each iteration begins, and how many steps there are."""

    starts: tuple[int, ...]
    total_steps: int

    @classmethod
    def of(cls, schedule: ScheduleRecipe, epoch_steps: float) -> Timetable:
        """The iterations as the schedule has them, all stretched alike where they have fewer than ``min_steps``."""
        epoch_steps *= max(1.0, schedule.min_steps / (schedule.total_epochs * epoch_steps))
        length = max(1, round(schedule.epochs_per_iteration * epoch_steps))
        starts = tuple(index * length for index in range(schedule.iterations))
        return cls(starts, starts[-1] + max(1, round(schedule.final_epochs * epoch_steps)))


class LadaBertLearner:
    """Distils the teacher into a student that shrinks as the timetable says."""

    passes = 1

    def __init__(
        self,
        teacher: BertForSequenceClassification,
        recipe: Recipe,
        epoch_steps: int,
        data: EncodedTexts,
        processes: Processes = ALONE,
    ) -> None:
        self.teacher = teacher.eval()
        self.recipe = recipe
        self.processes = processes
        shaped, self.statistics = narrow_and_observe(teacher, data, recipe)
        parameters = count_parameters(teacher).total
        self.layers, self.heads = shaped.layers, shaped.heads
        self.target: Shares = solve_shares(count_parameters(shaped.model), recipe.budget, parameters)
        self.timetable = Timetable.of(recipe.schedule, epoch_steps)
        set_activation(shaped.model, recipe.structure)
        self.student = Student(shaped.model, teacher_parameters=parameters)
        self.module = self.student.model
        set_dropout(self.module, recipe.distillation.dropout)

    @property
    def result(self) -> BertForSequenceClassification:
        """The student after the last step."""
        return self.module

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> bool:
        """Shrinks the student where an iteration begins."""
        if step not in self.timetable.starts:
            return False
        iteration = self.timetable.starts.index(step) + 1
        shares = shares_at(iteration, self.target, self.recipe.schedule)
        replaced = self.student.shrink(shares, self.recipe, self.statistics, optimiser.state)
        self.processes.check_alike(self.module, f"iteration {iteration}")
        if iteration >= self.recipe.schedule.factorise_iterations:
            self.statistics.moments.clear()  # the ranks are final; those of BERT-base take a gigabyte
        tqdm.write(
            f"iteration {iteration}/{self.recipe.schedule.iterations}: ×{self.student.ratio():.2f}, "
            f"P_svd {shares['encoder'].svd:.3f}, P_weight {shares['encoder'].mask_share:.3f}, "
            f"P_embd {shares['embedding'].kept:.3f}"
        )
        return replaced

    def after_backward(self) -> None:
        """Masked weights learn nothing, so that the norm of the gradients is that of the others."""
        mask_gradients(self.module)

    def after_update(self) -> None:
        """Masked weights stay zero."""
        apply_masks(self.module)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of equation 9, and that of the relations where the recipe has it."""
        with torch.no_grad():
            teacher = forward(self.teacher, batch, **LAYERS)
        student, weights = forward(self.module, batch, **LAYERS), self.recipe.distillation
        losses = distillation_losses(
            student,
            teacher,
            batch.attention_mask,
            weights,
            layers=self.layers,
            heads=self.heads,
            problem_type=batch.problem_type,
        )
        if weights.relation_weight:
            losses["relation"] = weights.relation_weight * self._relation_loss(student, teacher, batch.attention_mask)
        return losses

    def _relation_loss(self, student: Any, teacher: Any, token_mask: Tensor) -> Tensor:
        """The mean over queries, keys and values of the last layer, by the heads that the student has there."""
        own = vectors_of_last_layer(self.module, student.hidden_states, len(self.heads[-1]))
        with torch.no_grad():
            others = vectors_of_last_layer(self.teacher, teacher.hidden_states, self.teacher.config.num_attention_heads)
        kept = list(self.heads[-1])
        terms = [relation_divergence(s, t[:, kept], token_mask) for s, t in zip(own, others, strict=True)]
        return torch.stack(terms).mean()

    def structure(self) -> dict[str, Any]:
        """Ranks, and which parameters have masks."""
        return self.student.structure()

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """Ranks and masks of a checkpoint."""
        self.student.restore_structure(structure)


def distillation_losses(
    student: Any,
    teacher: Any,
    token_mask: Tensor,
    weights: DistillationRecipe,
    *,
    layers: Sequence[int],
    heads: Sequence[Sequence[int]],
    problem_type: str = "single_label",
) -> dict[str, Tensor]:
    """Equation 9's terms from two outputs with hidden states and attentions, each times its weight.

    The first hidden state is the embedding output, the others are the outputs of the layers' fully connected
    sub-layers. Each layer of the student's learns from the one of the teacher's that it was: ``layers``. Attentions are
    compared as probabilities, head by head: ``heads`` are those of the teacher's that the student has in each layer.
    """
    prediction_loss = PREDICTION_LOSSES[problem_type]
    hidden = [
        masked_mse(s, teacher.hidden_states[layer + 1], token_mask)
        for s, layer in zip(student.hidden_states[1:], layers, strict=True)
    ]
    attention = [
        attention_mse(s, t if s.shape == t.shape else t[:, list(kept)], token_mask)
        for s, t, kept in zip(student.attentions, (teacher.attentions[layer] for layer in layers), heads, strict=True)
    ]
    return {
        "embedding": weights.embedding_weight
        * masked_mse(student.hidden_states[0], teacher.hidden_states[0], token_mask),
        "attention": weights.attention_weight * torch.stack(attention).sum(),
        "hidden": weights.hidden_weight * torch.stack(hidden).sum(),
        "prediction": weights.prediction_weight * prediction_loss(student.logits, teacher.logits, weights.temperature),
    }


def vectors_of_last_layer(
    model: BertForSequenceClassification, hidden_states: Sequence[Tensor], heads: int
) -> list[Tensor]:
    """Queries, keys and values of the last layer, each (B, heads, T, d), from the hidden states of a forward pass."""
    attention = model.bert.encoder.layer[-1].get_submodule("attention.self")
    inputs = hidden_states[-2]
    projected = (attention.get_submodule(name)(inputs) for name in ("query", "key", "value"))
    return [vectors.unflatten(-1, (heads, -1)).transpose(1, 2) for vectors in projected]
