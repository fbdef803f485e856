"""Which rows a run learns from, which it is measured on, and which its temperature is fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TypeVar

from ladabert_compress.data.augmentation import WordNeighbours, join_rows, replace_words, word_neighbours
from ladabert_compress.data.batches import EncodedTexts, encode
from ladabert_compress.data.labels import no_targets, targets_of
from ladabert_compress.data.overlaps import hold_out, hold_out_without_overlaps
from ladabert_compress.data.texts import LabelledTexts, Texts, concatenate
from ladabert_compress.errors import DataError
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.predictions import decide
from ladabert_compress.recipe import Recipe, TrainingConfig
from ladabert_compress.teacher.folder import Teacher
from ladabert_compress.training.loop import RowsOfEpoch

DEV_ROWS = CALIBRATION_ROWS = TRIAL_ROWS = 1000

AnyTexts = TypeVar("AnyTexts", bound=Texts)


@dataclass(frozen=True)
class Sources:
    """The rows that a run is given, and how many to hold out of them.

    Without ``dev``, rows of ``train`` are held out to measure on, or of ``unlabelled`` where there is no ``train``.
    Without ``calibration``, rows of ``train`` are held out to fit the temperature on and to try int8 on, or of
    ``unlabelled`` for int8 alone. At most a tenth is held out each.
    """

    train: LabelledTexts | None
    dev: LabelledTexts | None
    unlabelled: Texts | None = None
    calibration: LabelledTexts | None = None
    dev_rows: int = DEV_ROWS
    calibration_rows: int = CALIBRATION_ROWS

    @property
    def by_option(self) -> dict[str, Texts | None]:
        """The sources by the options that name them."""
        return {
            "--train": self.train,
            "--unlabelled": self.unlabelled,
            "--dev": self.dev,
            "--calibration-data": self.calibration,
        }

    @property
    def task(self) -> str:
        """``single`` or ``pair``.

        Raises:
            DataError: there is nothing to learn from, or the sources are of different tasks.
        """
        tasks = {option: texts.task for option, texts in self.by_option.items() if texts is not None}
        if self.train is None and self.unlabelled is None:
            raise DataError("no rows to learn from; name them with --train, --unlabelled or both")
        first, *others = tasks
        for option in others:
            if tasks[option] != tasks[first]:
                raise DataError(f"{first} is a {tasks[first]} task, {option} a {tasks[option]} task")
        return tasks[first]


@dataclass(frozen=True)
class HeldOut:
    """Rows that changed no weight, for what the export decides; a sample of the others where there are too few."""

    data: EncodedTexts
    labelled: bool  # else their labels are not read


@dataclass(frozen=True)
class RunRows:
    """The rows of a run; only those of ``train`` change a weight."""

    train_texts: Texts
    train: EncodedTexts  # the labels of these are not read: the teacher says what to learn
    dev_texts: Texts
    dev: EncodedTexts
    dev_labels: str  # whose they are: ``data`` or ``teacher``, as the manifest says
    held_out: HeldOut


def divide_rows(teacher: Teacher, training: TrainingConfig, sources: Sources) -> RunRows:
    """Holds out what is needed and tokenises all; the teacher labels dev where nobody else did.

    Raises:
        DataError: a label is not the teacher's, or there are too few rows to hold any out.
    """
    max_length, seed = training.max_length, training.seed
    train, unlabelled, dev, calibration = sources.train, sources.unlabelled, sources.dev, sources.calibration
    if train is not None:  # its labels are checked, though the teacher says what to learn
        targets_of("--train", train, teacher.labels, teacher.problem_type)
    if dev is None and train is not None:
        train, dev = _hold_out(teacher, train, max_length, sources.dev_rows, seed)
    if calibration is None and train is not None:
        train, calibration = map(train.select, hold_out(len(train), sources.calibration_rows, seed))
    if dev is not None:
        dev_texts: Texts = dev
        dev_data, dev_labels = teacher.encode("--dev", dev, max_length), "data"
    else:
        assert unlabelled is not None  # ``Sources.task`` refuses what has neither
        unlabelled, dev_texts = _hold_out(teacher, unlabelled, max_length, sources.dev_rows, seed)
        dev_data, dev_labels = _labelled_by(teacher, dev_texts, max_length), "teacher"
    tried: Texts | None = calibration
    if tried is None and unlabelled is not None:
        unlabelled, tried = map(unlabelled.select, hold_out(len(unlabelled), sources.calibration_rows, seed))
    train_texts = concatenate([texts for texts in (train, unlabelled) if texts is not None])
    train_data = encode_unlabelled(teacher, train_texts, max_length)
    if not tried:
        held_out = HeldOut(train_data.sample(TRIAL_ROWS), labelled=False)
    elif calibration is None:
        held_out = HeldOut(encode_unlabelled(teacher, tried, max_length), labelled=False)
    else:
        held_out = HeldOut(teacher.encode("--calibration-data", calibration, max_length), labelled=True)
    return RunRows(train_texts, train_data, dev_texts, dev_data, dev_labels, held_out)


def augmented_rows(teacher: Teacher, recipe: Recipe, texts: Texts) -> RowsOfEpoch | None:
    """The training rows of each epoch, as the recipe joins them and replaces words; ``None`` where it leaves them."""
    joined, replaced, training = recipe.augment.joined_share, recipe.augment.replaced_share, recipe.training
    if not joined and not replaced:
        return None

    @cache
    def neighbours() -> WordNeighbours:
        rows, tokenizer = encode_unlabelled(teacher, texts, training.max_length), teacher.tokenizer
        table = teacher.model.bert.embeddings.word_embeddings.weight
        return word_neighbours(rows, tokenizer.get_vocab(), tokenizer.all_special_ids, table)

    @lru_cache(maxsize=1)  # the statistics read the first epoch before the loop does
    def rows_of_epoch(epoch: int) -> EncodedTexts:
        longer = join_rows(texts, joined, seed=training.seed, epoch=epoch) if joined else texts
        rows = encode_unlabelled(teacher, longer, training.max_length)
        if not replaced:
            return rows
        return replace_words(rows, neighbours(), replaced, seed=training.seed, epoch=epoch)

    return rows_of_epoch


def encode_unlabelled(teacher: Teacher, texts: Texts, max_length: int) -> EncodedTexts:
    """Rows as this teacher reads them; labels that they have are left out."""
    return encode(texts, no_targets(len(texts), teacher.labels, teacher.problem_type), teacher.tokenizer, max_length)


def _hold_out(teacher: Teacher, texts: AnyTexts, max_length: int, rows: int, seed: int) -> tuple[AnyTexts, AnyTexts]:
    """The rows to keep, and those to measure on, which overlap with none of the others."""
    kept, held_out = hold_out_without_overlaps(encode_unlabelled(teacher, texts, max_length), rows, seed)
    if not held_out:
        raise DataError(f"{len(texts)} rows are too few to hold a tenth out; name rows to measure on with --dev")
    return texts.select(kept), texts.select(held_out)


def _labelled_by(teacher: Teacher, texts: Texts, max_length: int) -> EncodedTexts:
    """Rows with the teacher's own predictions as labels."""
    data = encode_unlabelled(teacher, texts, max_length)
    predicted = decide(predict_logits(teacher.model, data, teacher.model.device).numpy(), data.labels)
    return replace(data, labels=predicted)
