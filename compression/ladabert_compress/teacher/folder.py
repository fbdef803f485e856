"""Loads and saves teachers: Hugging Face folders with safetensors; of a pickle, where allowed, tensors alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file, extract_commit_hash

from ladabert_compress.data.batches import EncodedTexts, encode
from ladabert_compress.data.labels import targets_of
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import TeacherError
from ladabert_compress.files import cannot_be_written
from ladabert_compress.student.bert import classifier_class
from ladabert_compress.teacher.families import FAMILIES, SUPPORTED, setting, to_bert
from ladabert_compress.teacher.source import TeacherSource

ACTIVATIONS = ("gelu", "relu")
CARD_FILE = "ladabert-teacher.json"
# Some models round their vocabulary up to a multiple of 8, 64 or 128. A tokenizer that lacks more is another model's.
LARGEST_VOCABULARY_PADDING = 128
PROBLEM_TYPES = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


@dataclass(frozen=True)
class TeacherCard:
    """Where a teacher comes from; the artefact's manifest repeats it. ``revision`` is the commit of a hub id."""

    name: str
    source: str
    licence: str
    revision: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values, without a revision where there is none."""
        return {name: value for name, value in asdict(self).items() if value or name != "revision"}


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned classifier with its tokenizer, labels in logit order, and origin."""

    model: BertForSequenceClassification
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    card: TeacherCard
    problem_type: str  # ``single_label``, ``multi_label`` or ``regression``, as the manifest names it

    def encode(self, source: str, texts: LabelledTexts, max_length: int) -> EncodedTexts:
        """Rows as this teacher reads them, of at most ``max_length`` tokens.

        Raises:
            DataError: a label is not the teacher's; the message begins with ``source``.
        """
        return encode(texts, targets_of(source, texts, self.labels, self.problem_type), self.tokenizer, max_length)


def load_encoder(
    source: TeacherSource, labels: tuple[str, ...], problem_type: str = "single_label"
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerBase, str]:
    """A pretrained encoder under BERT's classification head, from a hub id or a folder, and its commit on the hub.

    Raises:
        TeacherError: it is not there, of no family that is supported, or not in safetensors.
    """
    source = _pinned(source)
    config = _read_config(source, num_labels=len(labels))
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    theirs: Any = next(name for name, own in PROBLEM_TYPES.items() if own == problem_type)
    config.problem_type = theirs
    model = _load_model(source, config, new_head=True)
    return model, _load_tokenizer(source, config), source.revision


def load_teacher(source: TeacherSource | Path) -> Teacher:
    """A fine-tuned classifier from its folder or the hub, as a BERT module.

    Raises:
        TeacherError: it is not there, no classifier of a family that is supported, or not in safetensors.
    """
    source = TeacherSource.of(source)
    folder = Path(source.name)
    if not source.is_hub_id and not (folder / "config.json").is_file():
        raise TeacherError(f"{folder}: no config.json there; expected a Hugging Face folder of a fine-tuned encoder")
    source = _pinned(source)
    config = _read_config(source)
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise TeacherError(f"{folder}: is {config.architectures}, not a sequence classifier; fine-tune it first")
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    # A cross-encoder's one logit is trained as a yes or no; one that was trained as a number says ``regression``.
    unsaid = "multi_label_classification" if len(names) == 1 else "single_label_classification"
    problem_type = config.problem_type or unsaid
    fits = problem_type != "single_label_classification" if len(names) == 1 else problem_type != "regression"
    if problem_type not in PROBLEM_TYPES or not fits:
        raise TeacherError(
            f"{folder}: is a {problem_type} with {len(names)} outputs; supported are classification, and one output "
            "with a sigmoid or as a score"
        )
    card = _read_card(source)
    labels = tuple(names[index] for index in range(len(names)))
    model, tokenizer = _load_model(source, config), _load_tokenizer(source, config)
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
        (partial / CARD_FILE).write_text(json.dumps(card.to_dict(), indent=2) + "\n", encoding="utf-8")
        (partial / "finetune.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TeacherError(cannot_be_written(folder, error)) from error


def _read_card(source: TeacherSource) -> TeacherCard:
    folder = Path(source.name)
    card_file = folder / CARD_FILE
    try:
        if card_file.is_file():
            return TeacherCard(**json.loads(card_file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise TeacherError(f"{card_file}: is no teacher's card: {error}; delete it or write it again") from error
    if source.is_hub_id:
        return TeacherCard(folder.name, source.name, "unknown", source.revision)
    return TeacherCard(folder.resolve().name, source_of(source.name), "unknown")


def source_of(name: str) -> str:
    """What a model's folder says that it was made of, never a path of this machine; a hub id is its own source."""
    config_file = Path(name) / "config.json"
    if not config_file.is_file():
        return name
    recorded = str(json.loads(config_file.read_text(encoding="utf-8")).get("_name_or_path") or "")
    return recorded if recorded and not Path(recorded).is_absolute() else Path(recorded or name).resolve().name


def _pinned(source: TeacherSource) -> TeacherSource:
    """The same with the commit that the revision of a hub id is now, so that all of its files are of one commit."""
    if Path(source.name).exists():
        if source.revision:
            raise TeacherError(f"{source.name}: is a folder, which has no revisions; leave --revision out")
        return source
    try:
        config_file = cached_file(source.name, "config.json", revision=source.revision or "main")
    except (OSError, ValueError) as error:
        raise TeacherError(f"{source.name}: cannot be loaded: {_first_line(error)}") from error
    return replace(source, revision=extract_commit_hash(config_file, None) or source.revision)


def _read_config(source: TeacherSource, **overrides: Any) -> PreTrainedConfig:
    revision = source.revision or "main"
    try:
        kind = PreTrainedConfig.get_config_dict(source.name, revision=revision)[0].get("model_type", "nameless")
        if kind not in FAMILIES:
            raise TeacherError(f"{source.name}: is a {kind} model; supported are {SUPPORTED}")
        config: PreTrainedConfig = AutoConfig.from_pretrained(source.name, revision=revision, **overrides)
    except (OSError, ValueError) as error:
        raise TeacherError(f"{source.name}: cannot be loaded: {_first_line(error)}") from error
    activation, positions = setting(config, "hidden_act"), getattr(config, "position_embedding_type", "absolute")
    if activation not in ACTIVATIONS:
        raise TeacherError(f"{source.name}: hidden_act is {activation!r}; supported are {', '.join(ACTIVATIONS)}")
    if positions != "absolute":
        raise TeacherError(f"{source.name}: position_embedding_type is {positions!r}; only 'absolute' is supported")
    return config


def _load_model(
    source: TeacherSource, config: PreTrainedConfig, *, new_head: bool = False
) -> BertForSequenceClassification:
    is_bert = config.model_type == "bert"
    kind: Any = classifier_class(config) if is_bert else AutoModelForSequenceClassification
    if not source.allow_pickle and _has_pickle_alone(Path(source.name)):
        raise TeacherError(
            f"{source.name}: its weights are a pickle (pytorch_model.bin); save them as safetensors, or pass "
            "--allow-pickle, which reads its tensors and runs nothing"
        )
    try:
        # Eager attention returns the attention probabilities that equation 8 compares.
        model, report = kind.from_pretrained(
            source.name,
            config=config,
            revision=source.revision or "main",
            use_safetensors=None if source.allow_pickle else True,
            weights_only=True,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=new_head,
        )
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError, UnpicklingError) as error:
        raise TeacherError(f"{source.name}: cannot be loaded: {_first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing and not new_head:
        raise TeacherError(
            f"{source.name}: its weights lack {len(missing)} parameters, {missing[0]} among them; fine-tune it first"
        )
    bert: BertForSequenceClassification = model if is_bert else to_bert(model, new_head=new_head)
    bert.float()
    bert.eval()
    return bert


def _has_pickle_alone(folder: Path) -> bool:
    return any(folder.glob("pytorch_model*.bin")) and not any(folder.glob("*.safetensors"))


def _load_tokenizer(source: TeacherSource, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    name = source.name
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, revision=source.revision or "main", use_fast=True
        )
    except (OSError, ValueError) as error:
        raise TeacherError(f"{name}: has no usable tokenizer: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise TeacherError(f"{name}: has no fast tokenizer (tokenizer.json), which the service needs")
    _check_tokenizer(name, tokenizer, config)
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
