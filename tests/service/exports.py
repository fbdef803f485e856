"""Folders as `optimum-cli export onnx` writes them: random two-layer classifiers of each family, with a tokenizer."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tests.service.tiny_artefact import MAX_LENGTH, build_graph, build_tokenizer

CORPUS = [
    "a good film that is far better than the book, and shorter",
    "nobody answered my 12 letters; I don't know why they wouldn't",
    "ein schöner Film, naïve café, 日本語のテキスト",
] * 3
LENGTH = 24  # tokens that the models read
LABELS = {0: "sport", 1: "business", 2: "world"}
OPSET = 17


def word_pieces() -> PreTrainedTokenizerFast:
    """Return a tokenizer of BERT's kind."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(CORPUS, WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        do_lower_case=True,
        model_max_length=LENGTH,
    )


def angle_brackets(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def byte_level() -> PreTrainedTokenizerFast:
    """Return a tokenizer of RoBERTa's kind, which says no longest length."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=350,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return angle_brackets(backend)


def unigram() -> PreTrainedTokenizerFast:
    """Return a tokenizer of XLM-RoBERTa's kind."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = UnigramTrainer(
        vocab_size=120,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return angle_brackets(backend)


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.3,
    "id2label": LABELS,
}
FROM_ZERO = {**SIZES, "max_position_embeddings": LENGTH}
AFTER_PADDING = {**SIZES, "max_position_embeddings": LENGTH + 2, "pad_token_id": 1, "type_vocab_size": 1}
FAMILIES: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], dict[str, Any]]] = {
    "albert": (word_pieces, {**FROM_ZERO, "embedding_size": 16}),
    "bert": (word_pieces, FROM_ZERO),
    "camembert": (unigram, AFTER_PADDING),
    "deberta-v2": (
        word_pieces,
        {**FROM_ZERO, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    ),
    "distilbert": (word_pieces, {**FROM_ZERO, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "electra": (word_pieces, {**FROM_ZERO, "embedding_size": 16}),
    "mobilebert": (word_pieces, {**FROM_ZERO, "embedding_size": 16, "intra_bottleneck_size": 16}),
    "modernbert": (
        word_pieces,
        {**FROM_ZERO, "local_attention": 8, "global_attn_every_n_layers": 2, "pad_token_id": 0},
    ),
    "mpnet": (byte_level, AFTER_PADDING),
    "roberta": (byte_level, AFTER_PADDING),
    "xlm-roberta": (unigram, AFTER_PADDING),
}
READ_TYPES = {"albert", "bert", "electra", "mobilebert"}


class Logits(torch.nn.Module):
    """A classifier as the exporter calls it: tensors in order, logits (B, labels) out."""

    def __init__(self, classifier: Any, inputs: list[str]) -> None:
        super().__init__()
        self.classifier = classifier
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Return the logits."""
        return self.classifier(**dict(zip(self.inputs, tensors, strict=True))).logits


def write_export(folder: Path, family: str) -> Any:
    """Write a family's export, its tokenizer and its configuration; return the classifier."""
    make_tokenizer, sizes = FAMILIES[family]
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **sizes)
    classifier = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    classifier.config.architectures = [type(classifier).__name__]
    classifier.config.save_pretrained(folder)
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if family in READ_TYPES else [])]
    ids = torch.full((2, 7), 5)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself and what it traces
        torch.onnx.export(
            Logits(classifier, inputs).eval(),
            (ids, mask, torch.zeros_like(ids))[: len(inputs)],
            str(folder / "model.onnx"),
            input_names=inputs,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch_size"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return classifier


def write_tiny_export(folder: Path, graph: bytes | None = None, **config: Any) -> Path:
    """Write an export whose graph is the tiny artefact's, which takes no exporter; return its folder."""
    folder.mkdir(parents=True)
    tokenizer = build_tokenizer()
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": MAX_LENGTH, "do_lower_case": True}))
    (folder / "model.onnx").write_bytes(graph or build_graph(2, tokenizer.get_vocab_size(), seed=1))
    said = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "bad", "1": "good"},
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    (folder / "config.json").write_text(json.dumps({**said, **config}))
    return folder
