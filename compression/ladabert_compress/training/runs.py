"""The mean of the weights of several runs, kept on disk from one run to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ladabert_compress.training.checkpoint import load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


@dataclass
class MeanOfRuns:
    """The mean of the weights of the runs that are done, and what their evaluations were.

    Weights that were fine-tuned from the same start may be averaged, and are often better than each alone (Wortsman et
    al. 2022, "Model soups").
    """

    file: Path
    run_id: str
    evaluations: list[list[dict[str, float]]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path, run_id: str, *, resume: bool) -> MeanOfRuns:
        """The mean so far, of no run where there is no file.

        Raises:
            CheckpointError: the file cannot be read, other settings wrote it, or it would be lost to a new run.
        """
        saved = load_checkpoint(file, run_id, CPU, resume=resume)
        return cls(file, run_id) if saved is None else cls(file, run_id, saved["evaluations"], saved["weights"])

    @property
    def count(self) -> int:
        """Runs that are done."""
        return len(self.evaluations)

    @torch.no_grad()
    def add(self, module: nn.Module, evaluations: list[dict[str, float]]) -> None:
        """Adds a run's weights, in place of the file's content.

        Raises:
            CheckpointError: the file cannot be written; what it held stays.
        """
        self.evaluations.append(evaluations)
        for name, value in module.state_dict().items():
            value = value.detach().cpu()
            mean = self.weights.setdefault(name, value.clone())
            if mean.is_floating_point():
                mean.lerp_(value, 1 / self.count)
        state: dict[str, Any] = {"evaluations": self.evaluations, "weights": self.weights}
        save_checkpoint(self.file, self.run_id, state)
