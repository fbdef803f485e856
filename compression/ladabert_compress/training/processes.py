"""The processes of one run, as ``accelerate launch`` starts them: each learns from its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ladabert_compress.errors import DivergenceError
from ladabert_compress.teacher.identity import weights_digest


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. All hold the same weights; the first one writes."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, rows: Sequence[int]) -> tuple[Sequence[int], float]:
        """This process's rows of a batch, and their weight in its loss: the weights of all processes add up to 1.

        Rows of a batch are sorted by length, so dealing them out in turn gives every process the same work. With fewer
        rows than processes, a process without a row computes the first one at weight 0.
        """
        own = rows[self.rank :: self.count]
        return own or rows[:1], len(own) / len(rows)

    def sum_gradients(self, module: nn.Module) -> None:
        """Replaces every gradient by the sum over the processes."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    @torch.no_grad()
    def start_alike(self, module: nn.Module) -> None:
        """Gives every process the first one's weights, of which all must have the shapes."""
        if self.count > 1:
            for weight in (*module.parameters(), *module.buffers()):
                torch.distributed.broadcast(weight.data, src=0)

    def check_alike(self, module: nn.Module, where: str) -> None:
        """Compares a digest of the weights: gradients of models that differ must not be added up.

        Raises:
            DivergenceError: in every process, where one has other weights than the first; it begins with ``where``.
        """
        if self.count == 1:
            return
        digests = [""] * self.count
        torch.distributed.all_gather_object(digests, weights_digest(module))
        others = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
        if others:
            raise DivergenceError(
                f"{where}: process {', '.join(others)} has other weights than process 0; run all of them on machines "
                "of one kind, with the same versions and files"
            )

    def anywhere(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any of the processes: all of them learn it at the same step."""
        if self.count == 1:
            return flag
        flags = torch.tensor(float(flag), device=device)
        torch.distributed.all_reduce(flags)
        return bool(flags.item())

    def from_first(self, find: Callable[[], float]) -> float:
        """What ``find`` returns in the first process, in every process: the others wait for it."""
        if self.count == 1:
            return find()
        found = [find() if self.is_first else 0.0]
        torch.distributed.broadcast_object_list(found, src=0)
        return found[0]


ALONE = Processes()


def number_of_processes() -> int:
    """How many processes the launcher says that there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process is the launcher's first, before any of them has joined the others."""
    return number_of_processes() == 1 or os.environ.get("RANK", "0") == "0"


def join_processes(device: torch.device) -> tuple[Processes, torch.device]:
    """Meets the other processes that the launcher started, if any, and says on which device this one computes."""
    if number_of_processes() == 1:
        return ALONE, device
    from accelerate import PartialState  # takes a second to load, which a run on one device need not wait for

    state = PartialState(cpu=device.type == "cpu")
    return Processes(state.process_index, state.num_processes), torch.device(state.device)
