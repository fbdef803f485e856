"""Weight pruning: binary masks by magnitude, on A and B separately (equation 5)."""

from __future__ import annotations

import torch
from torch import Tensor


def magnitude_mask(weight: Tensor, keep: int) -> Tensor:
    """True at the ``keep`` entries of largest magnitude: exactly that many.

    Of equal magnitudes the one that comes first in memory order is kept.
    """
    order = weight.detach().abs().flatten().sort(descending=True, stable=True).indices
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[:keep]] = True
    return mask.view(weight.shape)


def split_kept(total: int, left_size: int, right_size: int, right_over_left: float) -> tuple[int, int]:
    """How many entries A and B keep, together exactly ``total``, at most all of each.

    B's kept share is ``right_over_left`` times A's, or as near to that as the sizes allow.
    """
    total = min(total, left_size + right_size)
    left_share = total / (left_size + right_over_left * right_size)
    right_kept = min(right_size, total, round(right_over_left * left_share * right_size))
    right_kept = max(right_kept, total - left_size)
    return total - right_kept, right_kept
