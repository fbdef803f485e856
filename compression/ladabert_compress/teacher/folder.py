"""Loads and saves teachers: Hugging Face folders with safetensors, never a pickle."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from ladabert_compress.data.batches import EncodedTexts, encode
from ladabert_compress.data.labels import targets_of
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import TeacherError
from ladabert_compress.files import cannot_be_written

ACTIVATIONS = ("gelu", "relu")
CARD_FILE = "ladabert-teacher.json"
# Some models round their vocabulary up to a multiple of 8, 64 or 128. A tokenizer that lacks more is another model's.
LARGEST_VOCABULARY_PADDING = 128
PROBLEM_TYPES = {"single_label_classification": "single_label", "multi_label_classification": "multi_label"}


@dataclass(frozen=True)
class TeacherCard:
    """Where a teacher comes from; the artefact's manifest repeats it."""

    name: str
    source: str
    licence: str


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned classifier with its tokenizer, labels in logit order, and origin."""

    model: BertForSequenceClassification
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    card: TeacherCard
    problem_type: str  # ``single_label`` or ``multi_label``, as the manifest names it

    def encode(self, source: str, texts: LabelledTexts, max_length: int) -> EncodedTexts:
        """Rows as this teacher reads them, of at most ``max_length`` tokens.

        Raises:
            DataError: a label is not the teacher's; the message begins with ``source``.
        """
        return encode(texts, targets_of(source, texts, self.labels, self.problem_type), self.tokenizer, max_length)


def load_encoder(source: str, labels: tuple[str, ...]) -> tuple[BertForSequenceClassification, PreTrainedTokenizerBase]:
    """A pretrained encoder under a new classification head, from a hub id or a folder.

    Raises:
        TeacherError: it is not there, not a BERT, or not in safetensors.
    """
    config = _bert_config(source, num_labels=len(labels))
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    return _load_model(source, config), _load_tokenizer(source, config)


def load_teacher(folder: Path) -> Teacher:
    """A fine-tuned classifier from its folder.

    Raises:
        TeacherError: it is not there, not a BERT classifier, or not in safetensors.
    """
    if not (folder / "config.json").is_file():
        raise TeacherError(f"{folder}: no config.json there; expected a Hugging Face folder of a fine-tuned BERT")
    config = _bert_config(str(folder))
    if config.architectures != ["BertForSequenceClassification"]:
        raise TeacherError(
            f"{folder}: is {config.architectures}, not a BertForSequenceClassification; fine-tune it first"
        )
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    problem_type = config.problem_type or "single_label_classification"
    if problem_type not in PROBLEM_TYPES or len(names) < 2:
        raise TeacherError(
            f"{folder}: is a {problem_type} with {len(names)} outputs; only classification with two or more labels "
            "is supported"
        )
    card_file = folder / CARD_FILE
    try:
        card = (
            TeacherCard(**json.loads(card_file.read_text(encoding="utf-8")))
            if card_file.is_file()
            else TeacherCard(folder.name, str(getattr(config, "_name_or_path", "") or folder.name), "unknown")
        )
    except (ValueError, TypeError) as error:
        raise TeacherError(f"{card_file}: is no teacher's card: {error}; delete it or write it again") from error
    labels = tuple(names[index] for index in range(len(names)))
    model, tokenizer = _load_model(str(folder), config), _load_tokenizer(str(folder), config)
    return Teacher(model, tokenizer, labels, card, PROBLEM_TYPES[problem_type])


def save_teacher(
    folder: Path,
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    card: TeacherCard,
    report: dict[str, Any],
) -> None:
    """Writes a new folder under a temporary name and renames it into place.

    Raises:
        TeacherError: it cannot be written; nothing is left behind.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / CARD_FILE).write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")
        (partial / "finetune.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TeacherError(cannot_be_written(folder, error)) from error


def _bert_config(source: str, **overrides: Any) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, **overrides)
    except (OSError, ValueError) as error:
        raise TeacherError(f"{source}: cannot be loaded: {_first_line(error)}") from error
    if config.model_type != "bert":
        raise TeacherError(f"{source}: is a {config.model_type} model; only BERT encoders are supported")
    if config.hidden_act not in ACTIVATIONS:
        raise TeacherError(f"{source}: hidden_act is {config.hidden_act!r}; supported are {', '.join(ACTIVATIONS)}")
    return config


def _load_model(source: str, config: PreTrainedConfig) -> BertForSequenceClassification:
    try:
        # Eager attention returns the attention probabilities that equation 8 compares.
        model: BertForSequenceClassification = BertForSequenceClassification.from_pretrained(
            source, config=config, use_safetensors=True, attn_implementation="eager"
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TeacherError(f"{source}: cannot be loaded: {_first_line(error)}") from error
    model.float()
    return model


def _load_tokenizer(source: str, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, use_fast=True)
    except (OSError, ValueError) as error:
        raise TeacherError(f"{source}: has no usable tokenizer: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise TeacherError(f"{source}: has no fast tokenizer (tokenizer.json), which the service needs")
    _check_tokenizer(source, tokenizer, config)
    return tokenizer


def _check_tokenizer(source: str, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Refuses another model's tokenizer, as far as sizes and special tokens tell."""
    if not 0 <= config.vocab_size - len(tokenizer) < LARGEST_VOCABULARY_PADDING:
        raise TeacherError(
            f"{source}: its tokenizer has {len(tokenizer):,} tokens, the model knows {config.vocab_size:,}; "
            "put the model's own tokenizer there"
        )
    for name in ("pad_token_id", "cls_token_id", "sep_token_id"):
        own, expected = getattr(tokenizer, name), getattr(config, name, None)
        if own is not None and expected is not None and own != expected:
            raise TeacherError(
                f"{source}: {name} is {own} in its tokenizer and {expected} in config.json; "
                "put the model's own tokenizer there"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
