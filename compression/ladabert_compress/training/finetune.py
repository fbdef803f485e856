"""Fine-tunes a pretrained encoder into a teacher."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import Batch, encode
from ladabert_compress.data.labels import label_ids, label_order
from ladabert_compress.data.overview import describe_sources
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import DataError, OptionError
from ladabert_compress.measure.inference import classify
from ladabert_compress.recipe import TrainingConfig
from ladabert_compress.teacher.folder import TeacherCard, load_encoder, save_teacher
from ladabert_compress.training.device import choose_device
from ladabert_compress.training.loop import CHECKPOINT_EVERY_S, set_dropout, steps_per_epoch, train
from ladabert_compress.training.processes import join_processes

Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class FinetuneConfig:
    """The settings of a fine-tuning run; ``label_names`` renames the labels in logit order."""

    base: str
    name: str
    source: str
    licence: str
    epochs: int
    evaluations_per_epoch: int
    average_decay: float
    dropout: float
    label_names: tuple[str, ...]
    training: TrainingConfig


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
    """Cross-entropy on the labels of the data; the result is an exponential average of the weights."""

    def __init__(self, module: BertForSequenceClassification, average_decay: float) -> None:
        self.module = module
        self._average: AveragedModel = AveragedModel(module, multi_avg_fn=growing_average(average_decay))

    @property
    def result(self) -> BertForSequenceClassification:
        """The average of the weights over the last steps."""
        average = self._average.module
        assert isinstance(average, BertForSequenceClassification)
        return average

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean cross-entropy over the batch."""
        return {"loss": nn.functional.cross_entropy(classify(self.module, batch).float(), batch.labels)}

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> bool:  # noqa: ARG002
        """Fine-tuning replaces no parameters."""
        return False

    def after_update(self) -> None:
        """Adds the new weights to the average."""
        self._average.update_parameters(self.module)

    def structure(self) -> dict[str, Any]:
        """The average so far."""
        return {"average": self._average.state_dict()}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """The average of a checkpoint."""
        self._average.load_state_dict(structure["average"])


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
    """Writes a teacher folder to ``out``, with the weights of the evaluation that does best on dev.

    ``out`` must not exist.

    Returns:
        Its accuracy on dev.

    Raises:
        OptionError: the names do not fit the labels, or ``max_length`` is over the positions of the base.
        TeacherError: the base cannot be used.
        DataError: train has one label only, or dev has one that train lacks.
        CheckpointError: an earlier run was interrupted and ``resume`` is not set, or it cannot be continued.
    """
    order = label_order(train_texts.labels)
    if len(order) < 2:
        raise DataError(f"--train: every row has the label {''.join(order)!r}; a classifier needs two or more")
    names = config.label_names or order
    if len(names) != len(order):
        raise OptionError(f"--label-names: {len(names)} names for {len(order)} labels ({', '.join(order)})")
    processes, device = join_processes(choose_device(device_name))
    torch.manual_seed(config.training.seed)  # the new head's weights
    model, tokenizer = load_encoder(config.base, names)
    model.to(device)  # type: ignore[arg-type]
    set_dropout(model, config.dropout)
    max_length, positions = config.training.max_length, model.config.max_position_embeddings
    if max_length > positions:
        raise OptionError(f"--max-length: {max_length} is over the base's {positions} positions")
    if processes.is_first:
        sources = {"--train": train_texts, "--dev": dev_texts}
        tqdm.write(describe_sources(sources, tokenizer, max_length, positions))
    train_data = encode(train_texts, label_ids("--train", train_texts, order), tokenizer, max_length)
    dev_data = encode(dev_texts, label_ids("--dev", dev_texts, order), tokenizer, max_length)
    epoch_steps = steps_per_epoch(len(train_data), config.training.batch_size)
    run_folder = out.with_name(out.name + ".run")
    learner = FinetuneLearner(model, config.average_decay)
    history = train(
        learner,
        train_data,
        dev_data,
        config.training,
        total_steps=config.epochs * epoch_steps,
        evaluate_every=max(1, epoch_steps // config.evaluations_per_epoch),
        device=device,
        checkpoint=run_folder / "checkpoint.pt",
        checkpoint_every_s=checkpoint_every_s,
        resume=resume,
        run_id=hashlib.sha256(repr((config, train_data.input_ids, train_data.labels)).encode()).hexdigest(),
        keep_best=True,
        description=f"finetune {out.name}",
        processes=processes,
    )
    accuracy = max(entry["accuracy"] for entry in history)
    if not processes.is_first:
        return accuracy
    report = {"dev_accuracy": accuracy, "config": asdict(config), "evaluations": history}
    save_teacher(
        out,
        learner.result.cpu(),
        tokenizer,
        TeacherCard(config.name, config.source or _source(config.base), config.licence),
        report,
    )
    shutil.rmtree(run_folder)
    return accuracy


def _source(base: str) -> str:
    """The base's own name if its folder has it, never a path of this machine."""
    config_file = Path(base) / "config.json"
    if not config_file.is_file():
        return base
    recorded = json.loads(config_file.read_text(encoding="utf-8")).get("_name_or_path", "")
    return str(recorded or Path(base).name)
