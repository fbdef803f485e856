"""Which teacher it is: the digest of its weights, and what its labels are called."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ladabert_compress.errors import OptionError
from ladabert_compress.teacher.folder import Teacher


def weights_digest(model: nn.Module) -> str:
    """The sha256 over every parameter's bytes in the model's order, in hexadecimal."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def with_label_names(teacher: Teacher, names: Sequence[str]) -> Teacher:
    """The teacher with these names of its labels, in logit order; none: with its own.

    Raises:
        OptionError: there are more or fewer than it has labels.
    """
    if not names:
        return teacher
    if len(names) != len(teacher.labels):
        own = ", ".join(teacher.labels)
        raise OptionError(f"--label-names: {len(names)} names for the teacher's {len(teacher.labels)} labels ({own})")
    return replace(teacher, labels=tuple(names))
