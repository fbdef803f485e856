"""Random classifiers of every family that is supported, written by ``transformers`` with tokenizers of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertTokenizer,
    CamembertTokenizer,
    DistilBertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from ladabert_compress.data.texts import LabelledTexts
from tests.compression.conftest import SPECIAL, WORDS

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIZES_OF_DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
BOUNDS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "distilbert": SIZES_OF_DISTILBERT,
    "distilbert-relu": SIZES_OF_DISTILBERT | {"activation": "relu", "sinusoidal_pos_embds": True},
    "roberta": SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "camembert": SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "xlm-roberta": SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "electra": SIZES | {"embedding_size": 32},
    "electra-small": SIZES | {"embedding_size": 16},
}


def family_tokenizer(family: str) -> PreTrainedTokenizerBase:
    """WordPiece, byte-level BPE or Unigram, as the family's own class makes it."""
    if family in ("camembert", "xlm-roberta"):
        characters = [(letter, -6.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
        pieces = [(token, 0.0) for token in BOUNDS[:4]] + [(f"▁{word}", -3.0) for word in WORDS] + characters
        kind = CamembertTokenizer if family == "camembert" else XLMRobertaTokenizer
        return kind(vocab=[*pieces, ("<mask>", 0.0)])
    if family == "roberta":
        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            special_tokens=list(BOUNDS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            vocab_size=320,
            show_progress=False,
        )
        trained.train_from_iterator([" ".join(WORDS)], trainer)
        model = json.loads(trained.to_str())["model"]
        merges: Any = [tuple(pair) for pair in model["merges"]]
        return RobertaTokenizer(vocab=model["vocab"], merges=merges)
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *WORDS))}
    return (DistilBertTokenizer if family.startswith("distilbert") else BertTokenizer)(vocab=vocabulary)


def random_classifier(family: str, vocabulary: int, **settings: Any) -> PreTrainedModel:
    """Weights larger than at a model's start, so that logits differ visibly, and none of them zero."""
    kind = {"distilbert-relu": "distilbert", "electra-small": "electra"}.get(family, family)
    settings = {"max_position_embeddings": 48, "id2label": {0: "negative", 1: "positive"}} | settings
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, **settings)
    if kind in ("roberta", "camembert", "xlm-roberta"):
        config.pad_token_id, config.bos_token_id, config.eos_token_id = 1, 0, 2
    config.architectures = [f"{kind}ForSequenceClassification"]
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5) if parameter.ndim == 2 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    return model


def save_family(folder: Path, family: str, **settings: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Writes a folder as users have it, and returns what it was made of."""
    tokenizer = family_tokenizer(family)
    model = random_classifier(family, len(tokenizer), **FAMILIES[family] | settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def mixed_texts(rows: int, *, pairs: bool) -> LabelledTexts:
    """Texts of one to sixty words, some of letters that no vocabulary has as words; labels alternate."""
    generator = torch.Generator().manual_seed(rows)
    words = (*WORDS, "zzz", "déjà", "x", "filmgood")

    def text() -> str:
        length = int(torch.randint(1, 61, (), generator=generator))
        return " ".join(words[int(index)] for index in torch.randint(0, len(words), (length,), generator=generator))

    labels = tuple(("negative", "positive")[row % 2] for row in range(rows))
    texts = tuple(text() for _ in range(rows))
    return LabelledTexts(texts, tuple(text() for _ in range(rows)) if pairs else None, labels)
