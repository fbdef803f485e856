"""The terms of the distillation loss (equations 8 and 9, and relations), as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def masked_mse(student: Tensor, teacher: Tensor, token_mask: Tensor) -> Tensor:
    """Mean squared error of two (B, T, H) over the real tokens, at which ``token_mask`` (B, T) is 1."""
    mask = token_mask.unsqueeze(-1).float()
    squared = (student.float() - teacher.float()).square() * mask
    return squared.sum() / (mask.sum() * student.shape[-1])


def attention_mse(student: Tensor, teacher: Tensor, token_mask: Tensor) -> Tensor:
    """Mean squared error of attention probabilities, both (B, heads, T, T), over pairs of real tokens."""
    mask = token_mask.float()
    pairs = (mask.unsqueeze(1) * mask.unsqueeze(2)).unsqueeze(1)
    squared = (student.float() - teacher.float()).square() * pairs
    return squared.sum() / (pairs.sum() * student.shape[1])


def relation_divergence(student: Tensor, teacher: Tensor, token_mask: Tensor) -> Tensor:
    """How far the student's relations between tokens are from the teacher's: KL in nats, mean over real tokens.

    A relation is the softmax of the scaled dot products of one kind of vectors among themselves: of queries, keys or
    values (MiniLMv2, Wang et al. 2021, equations 4 and 5).

    Args:
        student: (B, heads, T, d), vectors of one kind.
        teacher: the same of the teacher, whose d may be another.
        token_mask: (B, T), 1 at real tokens.
    """
    padding = (1.0 - token_mask.float())[:, None, None, :] * torch.finfo(torch.float32).min
    logs, expected = (
        ((vectors.float() @ vectors.float().transpose(-1, -2)) / vectors.shape[-1] ** 0.5 + padding).log_softmax(dim=-1)
        for vectors in (student, teacher)
    )
    divergence = (expected.exp() * (expected - logs)).sum(dim=-1)  # (B, heads, T)
    total: Tensor = (divergence * token_mask[:, None, :]).sum() / (token_mask.sum() * student.shape[1])
    return total


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the softened predictions, both (B, classes), mean over the batch."""
    target = (teacher.float() / temperature).softmax(dim=-1)
    return -(target * functional.log_softmax(student.float() / temperature, dim=-1)).sum(dim=-1).mean()


def score_mse(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ARG001
    """Mean squared error of the one logit of a regression, both (B, 1); it has no temperature."""
    return functional.mse_loss(student.float(), teacher.float())


def soft_binary_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each label's softened yes or no, both (B, labels), in a multi-label task."""
    target = (teacher.float() / temperature).sigmoid()
    return functional.binary_cross_entropy_with_logits(student.float() / temperature, target)
