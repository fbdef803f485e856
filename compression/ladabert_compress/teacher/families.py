"""Encoders that differ from BERT in names and details: each is turned into the one BERT module when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedConfig, PreTrainedModel

from ladabert_compress.student.bert import has_projection, new_classifier

Names = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """How the classifiers of one architecture differ from BERT's.

    Attributes:
        title: its name for people.
        names: parts of its parameters' names, and what BERT has in their place; applied in this order.
        settings: BERT's keys of the configuration that have other names here.
        layer_norm_eps: where the configuration does not say it.
        head_activation: of the layer before the classifier.
        positions_after_padding: whether positions begin behind the number of the padding token; no row before is read.
    """

    title: str
    names: Names = ()
    settings: Mapping[str, str] | None = None
    layer_norm_eps: float | None = None
    head_activation: str = "tanh"
    positions_after_padding: bool = False


_DENSE_HEAD: Names = (("classifier.dense.", "bert.pooler.dense."), ("classifier.out_proj.", "classifier."))
_ROBERTA: Names = (("roberta.", "bert."), *_DENSE_HEAD)

FAMILIES: Mapping[str, Family] = {
    "bert": Family("BERT"),
    "distilbert": Family(
        "DistilBERT",
        names=(
            ("distilbert.transformer.", "bert.encoder."),
            ("distilbert.", "bert."),
            (".attention.q_lin.", ".attention.self.query."),
            (".attention.k_lin.", ".attention.self.key."),
            (".attention.v_lin.", ".attention.self.value."),
            (".attention.out_lin.", ".attention.output.dense."),
            (".sa_layer_norm.", ".attention.output.LayerNorm."),
            (".ffn.lin1.", ".intermediate.dense."),
            (".ffn.lin2.", ".output.dense."),
            (".output_layer_norm.", ".output.LayerNorm."),
            ("pre_classifier.", "bert.pooler.dense."),
        ),
        settings={"intermediate_size": "hidden_dim", "hidden_act": "activation"},
        layer_norm_eps=1e-12,
        head_activation="relu",
    ),
    "roberta": Family("RoBERTa", names=_ROBERTA, positions_after_padding=True),
    "camembert": Family("CamemBERT", names=_ROBERTA, positions_after_padding=True),
    "xlm-roberta": Family("XLM-RoBERTa", names=_ROBERTA, positions_after_padding=True),
    "electra": Family(
        "ELECTRA",
        names=(("electra.embeddings_project.", "bert.embeddings.projection."), ("electra.", "bert."), *_DENSE_HEAD),
        head_activation="gelu",
    ),
}
SUPPORTED = ", ".join(family.title for family in FAMILIES.values())
POSITIONS, TOKEN_TYPES = (f"bert.embeddings.{kind}_embeddings.weight" for kind in ("position", "token_type"))
TYPE_ROWS = 2  # of the first and of the second text
SAME = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "initializer_range",
    "pad_token_id",
    "id2label",
    "label2id",
    "problem_type",
)


def setting(config: PreTrainedConfig, name: str) -> Any:
    """What a family's configuration says under BERT's name for it."""
    return getattr(config, (FAMILIES[config.model_type].settings or {}).get(name, name))


def position_offset(config: PreTrainedConfig) -> int:
    """Rows of the position table before the one of the first token."""
    return int(config.pad_token_id) + 1 if FAMILIES[config.model_type].positions_after_padding else 0


@torch.no_grad()
def to_bert(model: PreTrainedModel, *, new_head: bool = False) -> BertForSequenceClassification:
    """The BERT module with the same logits, given rows padded on the right.

    Families without token types get a table whose two rows are alike, since their tokenizers may number the texts of
    a pair all the same.

    Args:
        model: a sequence classifier of a family other than BERT.
        new_head: gives it BERT's head instead, with new weights where the family's has another activation.
    """
    config, family = model.config, FAMILIES[model.config.model_type]
    converted = new_classifier(bert_config(config, head_activation="tanh" if new_head else family.head_activation))
    weights: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        for theirs, ours in family.names:
            name = name.replace(theirs, ours)
        weights[name] = weight.float()
    weights[POSITIONS] = weights[POSITIONS][position_offset(config) :]
    types = weights.get(TOKEN_TYPES, torch.zeros(1, weights[POSITIONS].shape[1]))
    weights[TOKEN_TYPES] = types if len(types) >= TYPE_ROWS else types[:1].repeat(TYPE_ROWS, 1)
    if new_head and family.head_activation != "tanh":
        head = ("bert.pooler.", "classifier.")
        weights |= {name: weight for name, weight in converted.state_dict().items() if name.startswith(head)}
    converted.load_state_dict(weights)
    return converted


def bert_config(config: PreTrainedConfig, *, head_activation: str) -> BertConfig:
    """BERT's configuration of the same shape."""
    family = FAMILIES[config.model_type]
    values: dict[str, Any] = {name: setting(config, name) for name in SAME}
    values["max_position_embeddings"] = config.max_position_embeddings - position_offset(config)
    values["layer_norm_eps"] = family.layer_norm_eps or config.layer_norm_eps
    values["type_vocab_size"] = max(TYPE_ROWS, getattr(config, "type_vocab_size", 0))
    if head_activation != "tanh":
        values["head_activation"] = head_activation
    if has_projection(config):
        values["embedding_size"] = config.embedding_size
    return BertConfig(**values)
