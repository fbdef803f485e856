"""Fine-tunes a pretrained encoder into a teacher."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from ladabert_compress.data.batches import Batch, encode
from ladabert_compress.data.labels import label_ids, label_order, labels_of_row, targets_of
from ladabert_compress.data.overview import describe_sources
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import DataError, OptionError
from ladabert_compress.measure.inference import classify, evaluate_model
from ladabert_compress.measure.scores import main_metric
from ladabert_compress.recipe import TrainingConfig
from ladabert_compress.teacher.folder import TeacherCard, load_encoder, save_teacher, source_of
from ladabert_compress.teacher.source import TeacherSource
from ladabert_compress.training.device import choose_device
from ladabert_compress.training.loop import CHECKPOINT_EVERY_S, set_dropout, steps_per_epoch, train
from ladabert_compress.training.processes import join_processes
from ladabert_compress.training.runs import MeanOfRuns

SCORE = "score"  # what the one output of a regression is called
Tensors = tuple[Tensor, ...] | list[Tensor]  # as PyTorch hands them to an average of its own


@dataclass(frozen=True)
class FinetuneConfig:
    """The settings of a fine-tuning run; ``label_names`` renames the labels in logit order.

    The weights of ``runs`` are averaged; they start from one new head and have the seeds from the training's on.
    """

    base: str
    name: str
    source: str
    licence: str
    epochs: int
    average_decay: float
    dropout: float
    label_names: tuple[str, ...]
    training: TrainingConfig
    revision: str = ""
    allow_pickle: bool = False
    problem_type: str = "single_label"  # as the manifest names it
    r_drop: float = 0.0
    runs: int = 1

    @property
    def encoder(self) -> TeacherSource:
        """Where the base is."""
        return TeacherSource(self.base, self.revision, self.allow_pickle)


def growing_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """An exponential average whose decay grows to ``decay``: after n steps it is (1 + n) / (10 + n) at most.

    A short run would otherwise end with hardly more than its first weights. Weighing all steps of a short run alike, as
    Adam's correction of its moments would, is not enough: early weights are far from the last ones.
    """

    @torch.no_grad()
    def update(averages: Tensors, weights: Tensors, steps: Tensor | int) -> None:
        count = int(steps)
        share = 1 - min(decay, (1 + count) / (10 + count))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, share)

    return update


class FinetuneLearner:
    """Cross-entropy on the labels of the data, each by itself in a multi-label task, or of scores the squared error.

    Where it has a weight, R-Drop (Liang et al. 2021) passes each row twice, with other dropout, and adds the symmetric
    divergence of the two predictions. The result is an exponential average of the weights.
    """

    def __init__(self, module: BertForSequenceClassification, average_decay: float, r_drop: float = 0.0) -> None:
        self.module = module
        self.passes = 2 if r_drop else 1
        self._r_drop = r_drop
        self._average: AveragedModel = AveragedModel(module, multi_avg_fn=growing_average(average_decay))

    @property
    def result(self) -> BertForSequenceClassification:
        """The average of the weights over the last steps."""
        average = self._average.module
        assert isinstance(average, BertForSequenceClassification)
        return average

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean loss over the batch, and what R-Drop adds."""
        if self._r_drop:
            batch = batch.twice()
        logits = classify(self.module, batch).float()
        if batch.problem_type == "regression":
            losses = {"loss": nn.functional.mse_loss(logits.squeeze(1), batch.labels.float())}
        elif batch.problem_type == "multi_label":
            losses = {"loss": nn.functional.binary_cross_entropy_with_logits(logits, batch.labels.float())}
        else:
            losses = {"loss": nn.functional.cross_entropy(logits, batch.labels)}
        if self._r_drop:
            first, second = logits.chunk(2)
            apart = symmetric_divergence(first, second, batch.problem_type)
            losses["r_drop"] = self._r_drop * apart
        return losses

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> bool:  # noqa: ARG002
        """Fine-tuning replaces no parameters."""
        return False

    def after_backward(self) -> None:
        """Every weight learns."""

    def after_update(self) -> None:
        """Adds the new weights to the average."""
        self._average.update_parameters(self.module)

    def structure(self) -> dict[str, Any]:
        """The average so far."""
        return {"average": self._average.state_dict()}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """The average of a checkpoint."""
        self._average.load_state_dict(structure["average"])


def symmetric_divergence(first: Tensor, second: Tensor, problem_type: str) -> Tensor:
    """Half of the KL either way between predictions of the same rows, both (B, labels), in nats, mean over the rows.

    Scores are means of normal distributions of variance 1.
    """
    if problem_type == "regression":
        return nn.functional.mse_loss(first, second) / 2
    if problem_type == "multi_label":  # each label is a yes or no
        first, second = (torch.stack([logits, torch.zeros_like(logits)], dim=-1) for logits in (first, second))
    one, other = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    apart = ((one.exp() - other.exp()) * (one - other)).sum(dim=-1)
    return apart.mean() / 2


def finetune(
    config: FinetuneConfig,
    train_texts: LabelledTexts,
    dev_texts: LabelledTexts,
    out: Path,
    *,
    device_name: str = "auto",
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    resume: bool = False,
) -> float:
    """Writes a teacher folder to ``out``, with the average of the weights after the last step; dev decides nothing.

    ``out`` must not exist. Several runs come one after the other, in the memory of one, and go on where they stopped.

    Returns:
        Its accuracy on dev, or the correlation of its scores.

    Raises:
        OptionError: the names do not fit the labels, or ``max_length`` is over the positions of the base.
        TeacherError: the base cannot be used.
        DataError: train has one label only, or dev has one that train lacks.
        CheckpointError: an earlier run was interrupted and ``resume`` is not set, or it cannot be continued.
    """
    order = _labels_in_order(config, train_texts)
    names = config.label_names or order
    if len(names) != len(order):
        raise OptionError(f"--label-names: {len(names)} names for {len(order)} labels ({', '.join(order)})")
    processes, device = join_processes(choose_device(device_name))
    model, tokenizer, commit = _with_new_head(config, names)
    max_length, positions = config.training.max_length, model.config.max_position_embeddings
    if max_length > positions:
        raise OptionError(f"--max-length: {max_length} is over the base's {positions} positions")
    if processes.is_first:
        sources = {"--train": train_texts, "--dev": dev_texts}
        tqdm.write(describe_sources(sources, tokenizer, max_length, positions, problem_type=config.problem_type))
    train_data, dev_data = (
        encode(texts, _targets(config, source, texts, order), tokenizer, max_length)
        for source, texts in (("--train", train_texts), ("--dev", dev_texts))
    )
    epoch_steps = steps_per_epoch(len(train_data), config.training.batch_size)
    run_folder = out.with_name(out.name + ".run")
    identity = hashlib.sha256(repr(config).encode() + train_data.digest()).hexdigest()
    mean = MeanOfRuns.load(run_folder / "mean.pt", identity, resume=resume)
    first = mean.count
    for run in range(first, config.runs):
        if run > first:
            model, _, _ = _with_new_head(config, names)
        model.to(device)  # type: ignore[arg-type]
        learner = FinetuneLearner(model, config.average_decay, config.r_drop)
        history = train(
            learner,
            train_data,
            dev_data,
            replace(config.training, seed=config.training.seed + run),
            total_steps=config.epochs * epoch_steps,
            evaluate_every=epoch_steps,
            device=device,
            checkpoint=run_folder / f"checkpoint-{run + 1}.pt",
            checkpoint_every_s=checkpoint_every_s,
            resume=resume,
            run_id=identity,
            description=f"finetune {out.name}" + (f", run {run + 1} of {config.runs}" if config.runs > 1 else ""),
            processes=processes,
        )
        if processes.is_first:
            mean.add(learner.result, history)
            (run_folder / f"checkpoint-{run + 1}.pt").unlink()
        del learner  # before the next run's weights are read
    if processes.is_first:
        model.load_state_dict(mean.weights)
    model.to(device)  # type: ignore[arg-type]
    accuracy = processes.from_first(lambda: evaluate_model(model, dev_data, device))
    if not processes.is_first:
        return accuracy
    evaluations = [{"run": run, **entry} for run, entries in enumerate(mean.evaluations, 1) for entry in entries]
    report = {f"dev_{main_metric(dev_data.labels)}": accuracy, "config": asdict(config), "evaluations": evaluations}
    save_teacher(
        out,
        model.cpu(),
        tokenizer,
        TeacherCard(config.name, config.source or source_of(config.base), config.licence, commit),
        report,
    )
    shutil.rmtree(run_folder)
    return accuracy


def _labels_in_order(config: FinetuneConfig, train_texts: LabelledTexts) -> tuple[str, ...]:
    """The labels of train in logit order; a regression has one.

    Raises:
        DataError: there is nothing to tell apart.
    """
    found = train_texts.labels
    if config.problem_type == "multi_label":
        found = tuple(label for row in found for label in labels_of_row(row))
    order = label_order(found)
    if len(order) < 2:
        raise DataError(f"--train: every row has the label {''.join(order)!r}; a classifier needs two or more")
    return (SCORE,) if config.problem_type == "regression" else order


def _targets(config: FinetuneConfig, source: str, texts: LabelledTexts, order: tuple[str, ...]) -> npt.ArrayLike:
    if config.problem_type == "single_label":  # whose names may be 1, 2, …: here, numbers mean nothing else
        return label_ids(source, texts, order)
    return targets_of(source, texts, order, config.problem_type)


def _with_new_head(
    config: FinetuneConfig, names: tuple[str, ...]
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerBase, str]:
    """The base with a new head, the same each time, its tokenizer and its commit."""
    torch.manual_seed(config.training.seed)
    model, tokenizer, commit = load_encoder(config.encoder, names, config.problem_type)
    set_dropout(model, config.dropout)
    return model, tokenizer, commit
