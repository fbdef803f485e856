"""The training loop: the only one, for teachers and for students."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertForSequenceClassification

from compression.answers import accuracy
from compression.batches import Batch, EncodedTexts, evaluation_batches, training_batches
from compression.checkpoint import load_checkpoint, save_checkpoint
from compression.errors import OptionError
from compression.processes import ALONE, Processes

EVALUATION_BATCH_SIZE = 64
CURVE_POINTS = 200
MEMORY_EVERY = 20  # steps between returns of freed memory: under 1 % of a run's time, a tenth of its peak memory


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingConfig:
    """How to train; shares are shares of all steps, the learning rate is the peak of a trapezoid."""

    batch_size: Annotated[int, Field(ge=1, description="Rows a step.")] = 32
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate of AdamW.")] = 2e-5
    warmup_share: Annotated[float, Field(ge=0, le=1, description="Share of the steps with a rising rate.")] = 0.1
    decay_share: Annotated[float, Field(ge=0, le=1, description="Share of the steps with a falling rate.")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, description="AdamW's decay of matrices.")] = 0.01
    max_gradient_norm: Annotated[float, Field(gt=0, description="Longer gradients are scaled down to this.")] = 1.0
    max_length: Annotated[
        int, Field(ge=3, description="Tokens a row, special tokens included; the student's limit.")
    ] = 128
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Field(description="auto, fp32 or bf16; auto: bf16 where native.")
    ] = "auto"
    seed: Annotated[int, Field(ge=0, description="Fixes every random choice.")] = 0


class Learner(Protocol):
    """What the loop trains: a module, its losses, and what happens around a step."""

    module: BertForSequenceClassification

    @property
    def result(self) -> BertForSequenceClassification:
        """What is evaluated and kept: the module itself, or an average of it over the steps."""
        ...

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, each a scalar; the loop minimises their sum."""
        ...

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> bool:
        """Changes the module where the run's plan says so; true when parameters were replaced."""
        ...

    def after_update(self) -> None:
        """Restores what an optimiser step must not change, such as masked weights."""
        ...

    def structure(self) -> dict[str, Any]:
        """What is needed beside the weights to continue: plain values and tensors."""
        ...

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """Gives the module the structure that a checkpoint's weights fit into."""
        ...


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one.

    Raises:
        OptionError: CUDA is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda: PyTorch finds no CUDA device; use --device cpu or auto")
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 autocast where the device multiplies bf16 natively, or as told."""
    if precision == "auto":
        native = (
            torch.cuda.is_bf16_supported()
            if device.type == "cuda"
            else bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
        )
        precision = "bf16" if native else "fp32"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


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
    checkpoint_every: int = 500,
    resume: bool = False,
    run_id: str = "",
    keep_best: bool = False,
    description: str = "train",
    curve: list[dict[str, float]] | None = None,
    processes: Processes = ALONE,
) -> list[dict[str, float]]:
    """Trains ``learner.module`` in place for ``total_steps`` steps; what comes of it is ``learner.result``.

    The order of the rows depends on the seed and the epoch alone and the checkpoint holds everything else
    that a step depends on, so a run that was killed and resumed ends with the same weights as one that was
    not.

    Args:
        learner: what is trained.
        train_data: rows to train on.
        dev_data: rows to report accuracy on; they never change a weight.
        config: how to train.
        total_steps: optimiser steps.
        evaluate_every: steps between two evaluations; the last step is always evaluated.
        device: where the module is.
        checkpoint: file to write progress to; ``None`` writes nothing.
        checkpoint_every: steps between two checkpoints.
        resume: continue from ``checkpoint`` where it exists.
        run_id: names the run's settings; a checkpoint of another run is refused.
        keep_best: end with the weights of the best evaluation instead of the last.
        description: the progress bar's title.
        curve: filled with the running means of the losses at about 200 steps.
        processes: this process among those that share every batch.

    Returns:
        The evaluations in order.

    Raises:
        CheckpointError: the checkpoint cannot be read or is another run's, or there is one and ``resume`` is not set.
    """
    history: list[dict[str, float]] = []
    curve = [] if curve is None else curve
    curve_every = max(1, total_steps // CURVE_POINTS)
    best: dict[str, Tensor] = {}
    averages: dict[str, float] = {}
    start = 0
    saved = load_checkpoint(checkpoint, run_id, device, resume=resume) if checkpoint is not None else None
    if saved is not None:
        learner.restore_structure(saved["structure"])
        learner.module.load_state_dict(saved["model"])
    optimiser = make_optimiser(learner.module, config)
    if saved is not None:
        optimiser.load_state_dict(saved["optimiser"])
        restore_generators(saved["rng"], device)
        history, averages = saved["evaluations"], saved["averages"]
        curve[:] = saved.get("curve", [])
        best, start = saved["best"], saved["step"]
    else:
        torch.manual_seed(config.seed)

    epoch_steps = steps_per_epoch(len(train_data), config.batch_size)
    epoch, batches = -1, []
    with tqdm(total=total_steps, initial=start, desc=description, unit="step", mininterval=1.0) as bar:
        for step in range(start, total_steps):
            if learner.before_step(step, optimiser):
                optimiser = make_optimiser(learner.module, config, optimiser)
            if step // epoch_steps != epoch:
                epoch = step // epoch_steps
                batches = training_batches(train_data, config.batch_size, seed=config.seed, epoch=epoch)
            rows, weight = processes.share(batches[step % epoch_steps])
            batch = train_data.batch(rows).to(device)

            rate = learning_rate_at(step, total_steps, config)
            for group in optimiser.param_groups:
                group["lr"] = rate
            learner.module.train()
            with autocast(device, config.precision):
                losses = learner.losses(batch)
            loss = torch.stack(list(losses.values())).sum()
            (weight * loss).backward()
            processes.sum_gradients(learner.module)
            nn.utils.clip_grad_norm_(learner.module.parameters(), config.max_gradient_norm)
            optimiser.step()
            optimiser.zero_grad()
            learner.after_update()

            done = step + 1
            if done % MEMORY_EVERY == 0:
                return_freed_memory()
            for name, value in losses.items():
                averages[name] = 0.98 * averages.get(name, value.item()) + 0.02 * value.item()
            bar.update()
            bar.set_postfix({name: f"{value:.4f}" for name, value in averages.items()}, refresh=False)
            if done % curve_every == 0 or done == total_steps:
                curve.append({"step": done, **averages})
            if done % evaluate_every == 0 or done == total_steps:
                right = evaluate_accuracy(learner.result, dev_data, device)
                history.append({"step": done, "accuracy": right, **averages})
                tqdm.write(f"{description}: step {done}/{total_steps}: dev accuracy {right:.4f}")
                if keep_best and right >= max(entry["accuracy"] for entry in history):
                    best = {name: value.clone() for name, value in learner.result.state_dict().items()}
            if checkpoint is not None and processes.is_first and (done % checkpoint_every == 0 or done == total_steps):
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
                        "best": best,
                    },
                )
    if best:
        learner.result.load_state_dict(best)
    learner.result.eval()
    return history


def return_freed_memory() -> None:
    """Gives the system what glibc's heaps hold but nobody uses, much of it between batches of unlike lengths."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def generators(device: torch.device) -> dict[str, Tensor]:
    """Where the random numbers of the CPU are, and of the device where dropout draws its own."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def restore_generators(states: Mapping[str, Tensor] | Tensor, device: torch.device) -> None:
    """Goes on with the random numbers of a checkpoint; older ones held the CPU's alone."""
    states = {"cpu": states} if isinstance(states, Tensor) else states
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def make_optimiser(
    module: nn.Module, config: TrainingConfig, previous: torch.optim.Optimizer | None = None
) -> torch.optim.AdamW:
    """AdamW, without decay on biases and normalisation; parameters that live on keep their moments."""
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


def classify(model: BertForSequenceClassification, batch: Batch) -> Tensor:
    """Logits (B, classes) of one batch."""
    logits: Tensor = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
    ).logits
    return logits


@torch.inference_mode()
def predict_logits(model: BertForSequenceClassification, data: EncodedTexts, device: torch.device) -> Tensor:
    """Logits (N, classes) of every row in fp32, in the rows' order, on the CPU."""
    model.eval()
    parts: list[Tensor] = []
    order: list[int] = []
    for rows, batch in evaluation_batches(data, EVALUATION_BATCH_SIZE):
        parts.append(classify(model, batch.to(device)).float().cpu())
        order += rows
    return torch.cat(parts)[torch.tensor(order).argsort()]


def evaluate_accuracy(model: BertForSequenceClassification, data: EncodedTexts, device: torch.device) -> float:
    """The share of rows that are answered right, with every label where a row may have several."""
    return accuracy(predict_logits(model, data, device).numpy(), np.array(data.labels))
