"""Weight pruning: binary masks by magnitude, on A and B separately (equation 5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def top_mask(score: Tensor, keep: int) -> Tensor:
    """True at the ``keep`` entries of largest score: exactly that many.

    Of equal scores the one that comes first in memory order is kept.
    """
    order = score.detach().flatten().sort(descending=True, stable=True).indices
    mask = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    mask[order[:keep]] = True
    return mask.view(score.shape)


def top_masks(scores: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """One mask for each of the scores, that together keep the ``keep`` largest of all."""
    together = top_mask(torch.cat([score.flatten() for score in scores.values()]), keep)
    parts = together.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def split_kept(total: int, left_size: int, right_size: int, right_over_left: float) -> tuple[int, int]:
    """How many entries A and B keep, together exactly ``total``, at most all of each.

    B's kept share is ``right_over_left`` times A's, or as near to that as the sizes allow.
    """
    total = min(total, left_size + right_size)
    left_share = total / (left_size + right_over_left * right_size)
    right_kept = min(right_size, total, round(right_over_left * left_share * right_size))
    right_kept = max(right_kept, total - left_size)
    return total - right_kept, right_kept
