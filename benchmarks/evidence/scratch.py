"""A fresh smaller BERT that learns from the teacher as TinyBERT does (Jiao et al., arXiv 1909.10351)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from ladabert_compress.data.batches import Batch
from ladabert_compress.training.loop import set_dropout
from ladabert_compress.training.losses import attention_mse, masked_mse, soft_cross_entropy

INTERMEDIATE_OVER_WIDTH = 4  # BERT's own proportion, to stay near
INTERMEDIATE_STAGE = 0.5  # share of the steps that imitate the layers before the predictions are learnt


class ScratchStudent(BertForSequenceClassification):
    """The small BERT, with the two projections to the teacher's width that training alone needs."""

    def __init__(self, config: BertConfig, teacher_width: int) -> None:
        super().__init__(config)
        self.embedding_projection = nn.Linear(config.hidden_size, teacher_width, bias=False)
        self.hidden_projection = nn.Linear(config.hidden_size, teacher_width, bias=False)

    def student_parameters(self) -> int:
        """Parameters without the projections, which are dropped after training."""
        return sum(p.numel() for name, p in self.named_parameters() if "_projection." not in name)


class ScratchLearner:
    """First the layers (embedding, attention and hidden terms), then the predictions (prediction term), as TinyBERT.

    Student layer m learns from teacher layer m·(depth of the teacher / depth of the student).
    """

    passes = 1

    def __init__(self, teacher: BertForSequenceClassification, parameters: int, total_steps: int, seed: int) -> None:
        self.teacher = teacher.eval()
        torch.manual_seed(seed)
        student = ScratchStudent(student_config(teacher.config, parameters), teacher.config.hidden_size)
        student.to(teacher.device)  # type: ignore[arg-type]
        self._student = student
        self.module: BertForSequenceClassification = student
        set_dropout(student, 0.0)
        self._stride = teacher.config.num_hidden_layers // student.config.num_hidden_layers
        self._prediction_from = round(INTERMEDIATE_STAGE * total_steps)
        self._step = 0

    @property
    def result(self) -> BertForSequenceClassification:
        """The student after the last step."""
        return self.module

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> bool:  # noqa: ARG002
        """Nothing is replaced; which terms count depends on the step."""
        self._step = step
        return False

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the stage."""
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
        }
        layers = self._step < self._prediction_from
        with torch.no_grad():
            teacher = self.teacher(**inputs, output_hidden_states=layers, output_attentions=layers)
        student = self.module(**inputs, output_hidden_states=layers, output_attentions=layers)
        if not layers:
            return {"prediction": soft_cross_entropy(student.logits, teacher.logits, 1.0)}
        mask, stride = batch.attention_mask, self._stride
        hidden = [
            masked_mse(self._student.hidden_projection(own), other, mask)
            for own, other in zip(student.hidden_states[1:], teacher.hidden_states[stride::stride], strict=True)
        ]
        attention = [
            attention_mse(own, other, mask)
            for own, other in zip(student.attentions, teacher.attentions[stride - 1 :: stride], strict=True)
        ]
        return {
            "embedding": masked_mse(
                self._student.embedding_projection(student.hidden_states[0]), teacher.hidden_states[0], mask
            ),
            "attention": torch.stack(attention).sum(),
            "hidden": torch.stack(hidden).sum(),
        }

    def after_backward(self) -> None:
        """Nothing is masked."""

    def after_update(self) -> None:
        """Nothing is masked."""

    def structure(self) -> dict[str, Any]:
        """Weights are all there is."""
        return {}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """Weights are all there is."""


def student_config(teacher: BertConfig, parameters: int) -> BertConfig:
    """A BERT with at most this many parameters and as close to it as its feed-forward width allows.

    It has the teacher's vocabulary and number of heads (their attentions are compared one by one), half its layers
    where these are even, and of the widths that fit the one whose feed-forward layers are closest to BERT's four
    times the width.
    """
    heads, depth = teacher.num_attention_heads, teacher.num_hidden_layers
    layers = depth // 2 if depth % 2 == 0 else depth
    candidates: list[tuple[float, int, int]] = []
    for width in range(heads, teacher.hidden_size + 1, heads):
        base = parameters_of(_shape(teacher, layers, width, 0))
        intermediate = (parameters - base) // (layers * (2 * width + 1))
        if intermediate >= 1:
            off = abs(math.log(intermediate / (INTERMEDIATE_OVER_WIDTH * width)))
            candidates.append((off, width, intermediate))
    if not candidates:
        raise ValueError(f"no BERT over this vocabulary has {parameters:,} parameters or fewer")
    _, width, intermediate = min(candidates)
    return _shape(teacher, layers, width, intermediate)


def parameters_of(config: BertConfig) -> int:
    """Parameters of a classifier of this shape."""
    width, inner = config.hidden_size, config.intermediate_size
    embeddings = (config.vocab_size + config.max_position_embeddings + config.type_vocab_size + 2) * width
    attention = 4 * (width * width + width) + 2 * width
    feed_forward = 2 * width * inner + inner + width + 2 * width
    head = width * width + width + (width + 1) * int(config.num_labels or 2)
    return int(embeddings + config.num_hidden_layers * (attention + feed_forward) + head)


def _shape(teacher: BertConfig, layers: int, width: int, intermediate: int) -> BertConfig:
    return BertConfig(
        vocab_size=teacher.vocab_size,
        max_position_embeddings=teacher.max_position_embeddings,
        type_vocab_size=teacher.type_vocab_size,
        pad_token_id=teacher.pad_token_id,
        num_attention_heads=teacher.num_attention_heads,
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=intermediate,
        problem_type=teacher.problem_type,
        id2label=teacher.id2label,
        attn_implementation="eager",  # type: ignore[call-arg]  # returns the attention probabilities
    )
