"""The training loop, one for teachers and for students."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import Batch, EncodedTexts, divide_batch, training_batches
from ladabert_compress.errors import DivergenceError, StoppedError
from ladabert_compress.measure.inference import evaluate_model
from ladabert_compress.measure.scores import main_metric
from ladabert_compress.recipe import TrainingConfig
from ladabert_compress.training.checkpoint import load_checkpoint, save_checkpoint
from ladabert_compress.training.device import autocast, generators, restore_generators, return_freed_memory
from ladabert_compress.training.processes import ALONE, Processes
from ladabert_compress.training.stopping import StopRequest, stop_requests

RowsOfEpoch = Callable[[int], EncodedTexts]

CURVE_POINTS = 200
CHECKPOINT_EVERY_S = 120.0
MEMORY_EVERY = 20  # steps between returns of freed memory: under 1 % of a run's time, a tenth of its peak memory


class Learner(Protocol):
    """What the loop trains: a module, its losses, and what happens around a step."""

    module: BertForSequenceClassification
    passes: int
    """How often the module reads each row of a step, at once."""

    @property
    def result(self) -> BertForSequenceClassification:
        """What is evaluated and kept: the module itself, or an average of it over the steps."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, each a scalar; the loop minimises their sum."""

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> bool:
        """Changes the module at the steps of its plan; true when parameters were replaced."""

    def after_backward(self) -> None:
        """Takes out of the gradients what they must not change, before their norm is measured."""

    def after_update(self) -> None:
        """Restores what an optimiser step must not change, such as masked weights."""

    def structure(self) -> dict[str, Any]:
        """Plain values and tensors that a checkpoint holds beside the module's state."""

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """Gives the module the structure that a checkpoint's state fits into."""


def learning_rate_at(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Linear rise over the warm-up, flat, linear fall over the decay."""
    warmup_steps = config.warmup_share * total_steps
    decay_steps = config.decay_share * total_steps
    rise = (step + 1) / warmup_steps if warmup_steps else 1.0
    fall = (total_steps - step) / decay_steps if decay_steps else 1.0
    return config.learning_rate * min(1.0, rise, fall)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimiser steps in which every row is seen once."""
    return -(-rows // batch_size)


def train(
    learner: Learner,
    train_data: EncodedTexts,
    dev_data: EncodedTexts,
    config: TrainingConfig,
    *,
    total_steps: int,
    evaluate_every: int,
    device: torch.device,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    resume: bool = False,
    run_id: str = "",
    description: str = "train",
    curve: list[dict[str, float]] | None = None,
    spent: dict[str, float] | None = None,
    rows_of_epoch: RowsOfEpoch | None = None,
    processes: Processes = ALONE,
    clock: Callable[[], float] = time.monotonic,
    cpu_clock: Callable[[], float] = time.process_time,
) -> list[dict[str, float]]:
    """Trains ``learner.module`` in place for ``total_steps`` steps; what comes of it is ``learner.result``.

    A run that was killed and resumed ends with the same weights as one that was not: the order of the rows depends
    on the seed and the epoch alone, and the checkpoint holds everything else that a step depends on. Ctrl-C and SIGTERM
    end the run after the step that is under way, with a checkpoint of it.

    Args:
        learner: what is trained, on ``train_data`` as ``config`` says.
        dev_data: rows to report accuracy, or of scores the correlation, on; they never change a weight.
        evaluate_every: steps between two evaluations; the last step is always evaluated.
        checkpoint: file to write progress to; ``None`` writes nothing.
        checkpoint_every_s: seconds between two of them, by ``clock``; the last step always has one.
        resume: continue from ``checkpoint`` where it exists.
        run_id: names the run's settings; a checkpoint of another run is refused.
        description: the progress bar's title.
        curve: filled with the running means of the losses at about 200 steps.
        spent: filled with ``earlier_cpu_seconds``, which the steps up to the checkpoint took in other processes.
        rows_of_epoch: the rows of each epoch, as many as ``train_data`` has, in their place.
        processes: this process among those that share every batch.
        clock: seconds.
        cpu_clock: CPU seconds of this process.

    Returns:
        The evaluations in order.

    Raises:
        CheckpointError: the checkpoint cannot be read or is another run's, or there is one and ``resume`` is not set.
        DivergenceError: the loss or its gradients are no numbers any more.
        StoppedError: Ctrl-C or SIGTERM ended the run.
    """
    cpu_start, earlier_cpu_seconds = cpu_clock(), 0.0
    history: list[dict[str, float]] = []
    metric = main_metric(dev_data.labels)
    curve = [] if curve is None else curve
    curve_every = max(1, total_steps // CURVE_POINTS)
    averages: dict[str, float] = {}
    start = 0
    saved = load_checkpoint(checkpoint, run_id, device, resume=resume) if checkpoint is not None else None
    if saved is not None:
        learner.restore_structure(saved["structure"])
        learner.module.load_state_dict(saved["model"])
    processes.start_alike(learner.module)
    optimiser = make_optimiser(learner.module, config)
    if saved is not None:
        optimiser.load_state_dict(saved["optimiser"])
        restore_generators(saved["rng"], device)
        history, averages = saved["evaluations"], saved["averages"]
        curve[:] = saved["curve"]
        start = saved["step"]
        earlier_cpu_seconds = saved.get("cpu_seconds", 0.0)  # checkpoints of earlier versions lack them
        saved = None  # frees its copy of the weights
    else:
        torch.manual_seed(config.seed)

    epoch_steps = steps_per_epoch(len(train_data), config.batch_size)
    epoch, epoch_data, batches = -1, train_data, []
    written_at = clock()
    with (
        nullcontext(StopRequest()) if checkpoint is None else stop_requests() as stop,
        tqdm(total=total_steps, initial=start, desc=description, unit="step", mininterval=1.0) as bar,
    ):
        for step in range(start, total_steps):
            if learner.before_step(step, optimiser):
                optimiser = make_optimiser(learner.module, config, optimiser)
            if step // epoch_steps != epoch:
                epoch = step // epoch_steps
                epoch_data = train_data if rows_of_epoch is None else rows_of_epoch(epoch)
                batches = training_batches(epoch_data, config.batch_size, seed=config.seed, epoch=epoch)
            rows, weight = processes.share(batches[step % epoch_steps])

            rate = learning_rate_at(step, total_steps, config)
            for group in optimiser.param_groups:
                group["lr"] = rate
            learner.module.train()
            losses = add_gradients(learner, epoch_data, rows, config, device, weight=weight)
            processes.sum_gradients(learner.module)
            learner.after_backward()
            norm = nn.utils.clip_grad_norm_(learner.module.parameters(), config.max_gradient_norm)
            optimiser.step()
            optimiser.zero_grad()
            learner.after_update()  # a student applies its masks again, a teacher averages its weights

            done = step + 1
            if done % MEMORY_EVERY == 0:
                return_freed_memory()
            _check_finite(f"{description}: step {done}", losses, norm.item())
            for name, value in losses.items():
                averages[name] = 0.98 * averages.get(name, value) + 0.02 * value
            bar.update()
            bar.set_postfix({name: f"{value:.4f}" for name, value in averages.items()}, refresh=False)
            if done % curve_every == 0 or done == total_steps:
                curve.append({"step": done, **averages})
            if done % evaluate_every == 0 or done == total_steps:
                found = evaluate_model(learner.result, dev_data, device)
                history.append({"step": done, metric: found, **averages})
                tqdm.write(f"{description}: step {done}/{total_steps}: dev {metric} {found:.4f}")
            stopping = processes.anywhere(stop.signal_number > 0, device)
            due = stopping or done == total_steps or clock() - written_at >= checkpoint_every_s
            if checkpoint is not None and processes.is_first and due:
                save_checkpoint(
                    checkpoint,
                    run_id,
                    {
                        "step": done,
                        "model": learner.module.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "rng": generators(device),
                        "structure": learner.structure(),
                        "evaluations": history,
                        "curve": curve,
                        "averages": averages,
                        "cpu_seconds": earlier_cpu_seconds + cpu_clock() - cpu_start,
                    },
                )
                written_at = clock()
            if stopping:
                raise StoppedError(
                    f"{description}: stopped after step {done:,} of {total_steps:,}",
                    stop.signal_number or signal.SIGTERM,  # it reached another process
                )
    learner.result.eval()
    if spent is not None:
        spent["earlier_cpu_seconds"] = earlier_cpu_seconds
    return history


def add_gradients(
    learner: Learner,
    data: EncodedTexts,
    rows: Sequence[int],
    config: TrainingConfig,
    device: torch.device,
    *,
    weight: float = 1.0,
) -> dict[str, float]:
    """Adds ``weight`` times the gradients of a batch's loss, part by part where it is large, to those of the module.

    Returns:
        The terms of the loss, each the mean over the parts by their rows.
    """
    terms: dict[str, float] = {}
    for part in divide_batch(data, rows, config.tokens_at_once // learner.passes):
        share = len(part) / len(rows)
        with autocast(device, config.precision):
            losses = learner.losses(data.batch(part).to(device))
        (weight * share * torch.stack(list(losses.values())).sum()).backward()
        for name, value in losses.items():
            terms[name] = terms.get(name, 0.0) + share * value.item()
    return terms


def _check_finite(where: str, losses: Mapping[str, float], gradient_norm: float) -> None:
    """Raises DivergenceError for a loss or a gradient that is no number any more."""
    if not all(map(math.isfinite, (*losses.values(), gradient_norm))):
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise DivergenceError(
            f"{where}: training has diverged ({terms}, gradient norm {gradient_norm:g}); start anew with a lower "
            "learning rate, or with fp32 in the place of bf16"
        )


def make_optimiser(
    module: nn.Module, config: TrainingConfig, previous: torch.optim.Optimizer | None = None
) -> torch.optim.AdamW:
    """AdamW, without decay on biases and normalisation; parameters that ``previous`` had keep their moments."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        fused=True,
    )
    if previous is not None:
        for parameter in parameters:
            if parameter in previous.state:
                optimiser.state[parameter] = previous.state[parameter]
    return optimiser


def set_dropout(model: nn.Module, probability: float) -> None:
    """Gives every dropout layer of the model the same probability."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
