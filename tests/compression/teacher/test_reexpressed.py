"""A BERT whose weights are written in another family's layout gives its own answers, whichever way it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ladabert_compress.data.batches import encode
from ladabert_compress.data.labels import no_targets
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.student.bert import new_classifier
from ladabert_compress.teacher.folder import load_teacher
from tests.compression.teacher.families import mixed_texts

CPU = torch.device("cpu")
ROWS = 200
TYPES, WORDS, POSITIONS = (f"bert.embeddings.{kind}_embeddings.weight" for kind in ("token_type", "word", "position"))
# BERT's names and what stands in their place; in this order, since a name may be part of another.
DENSE_HEAD = (
    ("bert.pooler.dense.", "classifier.dense."),
    ("classifier.weight", "classifier.out_proj.weight"),
    ("classifier.bias", "classifier.out_proj.bias"),
)
DISTILBERT = (
    ("bert.pooler.dense.", "pre_classifier."),
    (".attention.self.query.", ".attention.q_lin."),
    (".attention.self.key.", ".attention.k_lin."),
    (".attention.self.value.", ".attention.v_lin."),
    (".attention.output.dense.", ".attention.out_lin."),
    (".attention.output.LayerNorm.", ".sa_layer_norm."),
    (".intermediate.dense.", ".ffn.lin1."),
    (".output.dense.", ".ffn.lin2."),
    (".output.LayerNorm.", ".output_layer_norm."),
    ("bert.encoder.", "distilbert.transformer."),
    ("bert.embeddings.", "distilbert.embeddings."),
)
NAMES = {
    "distilbert": DISTILBERT,
    "roberta": (*DENSE_HEAD, ("bert.", "roberta.")),
    "camembert": (*DENSE_HEAD, ("bert.", "roberta.")),
    "xlm-roberta": (*DENSE_HEAD, ("bert.", "roberta.")),
    "electra": (*DENSE_HEAD, ("bert.", "electra.")),
}
HEADS = {"distilbert": "relu", "electra": "gelu"}  # the others have BERT's tanh
OF_DISTILBERT = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
}


def with_head(bert: BertForSequenceClassification, family: str) -> BertForSequenceClassification:
    """The same weights under a head with the family's activation: no weights make a ReLU of a tanh."""
    config = BertConfig(**bert.config.to_dict() | {"head_activation": HEADS.get(family, "tanh")})
    original = new_classifier(config)
    original.load_state_dict(bert.state_dict())
    original.eval()
    return original


def reexpress(bert: BertForSequenceClassification, family: str) -> PreTrainedModel:
    """The family's own classifier with a BERT's weights: the row of the first token type is part of the others."""
    weights: dict[str, Tensor] = dict(bert.state_dict())
    config = AutoConfig.for_model(family, **_settings(bert, family))
    if family != "electra":  # which has token types
        types = weights.pop(TYPES)
        if family == "distilbert":
            weights[WORDS] = weights[WORDS] + types[0]
        else:
            weights[TYPES] = types[:1]
            unread = torch.full((config.pad_token_id + 1, config.hidden_size), 7.0)
            weights[POSITIONS] = torch.cat([unread, weights[POSITIONS]])
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    model.load_state_dict({_renamed(name, family): weight for name, weight in weights.items()})
    model.eval()
    return model


def _settings(bert: BertForSequenceClassification, family: str) -> dict[str, Any]:
    named = bert.config.to_dict()
    same = ("vocab_size", "max_position_embeddings", "pad_token_id", "id2label", "label2id")
    settings = {name: named[name] for name in same}
    if family == "distilbert":
        return settings | {theirs: named[ours] for theirs, ours in OF_DISTILBERT.items()}
    settings |= {ours: named[ours] for ours in (*OF_DISTILBERT.values(), "layer_norm_eps")}
    if family == "electra":
        return settings | {"embedding_size": named["hidden_size"]}
    positions = named["max_position_embeddings"] + named["pad_token_id"] + 1
    return settings | {"type_vocab_size": 1, "max_position_embeddings": positions}


def _renamed(name: str, family: str) -> str:
    for ours, theirs in NAMES[family]:
        name = name.replace(ours, theirs)
    return name


def largest_difference(
    bert: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    family: str,
    folder: Path,
    *,
    pairs: bool = False,
) -> tuple[float, float]:
    """Between the logits of the original, and those of the folder as we load it and as ``transformers`` does."""
    original = with_head(bert, family)
    reexpress(original, family).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    teacher = load_teacher(folder)
    texts, longest = mixed_texts(ROWS, pairs=pairs), bert.config.max_position_embeddings
    data = encode(texts, no_targets(ROWS, teacher.labels, "single_label"), tokenizer, longest)
    expected = predict_logits(original, data, CPU)
    assert expected.std() > 0.01
    assert pairs or len(set(data.lengths)) > 10
    own = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = data.batch(range(ROWS))
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if family == "electra":
        inputs["token_type_ids"] = batch.token_type_ids
    with torch.inference_mode():
        theirs = own(**inputs).logits
    ours = predict_logits(teacher.model, teacher.encode("rows", texts, longest), CPU)
    return float((ours - expected).abs().max()), float((theirs - expected).abs().max())


@pytest.mark.parametrize(
    ("family", "pairs"), [*((family, False) for family in NAMES), ("electra", True)], ids=lambda value: str(value)
)
def test_weights_in_the_layout_of_another_family_give_their_own_answers(
    family: str,
    pairs: bool,
    tiny_bert: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    ours, theirs = largest_difference(tiny_bert, tokenizer, family, tmp_path, pairs=pairs)
    assert max(ours, theirs) < 1e-5
