"""The one module that all else knows: BERT's classifier, with the two things in which others differ from it.

Two keys of the configuration that BERT's own lacks say how: ``head_activation`` of the layer before the classifier
(``tanh``), and ``embedding_size`` of the tables (``hidden_size``). Rows of another size are normalised first and then
projected by one linear layer. It cannot be part of the tables: the normalisation between them is not linear.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.models.bert.modeling_bert import BertEmbeddings


class ProjectedEmbeddings(BertEmbeddings):
    """Tables of ``embedding_size`` columns, normalised, then projected to ``hidden_size``."""

    def __init__(self, config: PreTrainedConfig) -> None:
        narrow = copy.copy(config)
        narrow.hidden_size = config.embedding_size
        super().__init__(narrow)  # type: ignore[no-untyped-call]
        self.projection = nn.Linear(config.embedding_size, config.hidden_size)

    def forward(self, *arguments: Any, **inputs: Any) -> Tensor:
        """(B, T) → (B, T, H)."""
        projected: Tensor = self.projection(super().forward(*arguments, **inputs))
        return projected


class AdaptedBertForSequenceClassification(BertForSequenceClassification):
    """BERT's classifier with the activation and the embeddings that its configuration names."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert.get_submodule("pooler").activation = ACT2FN[head_activation(config)]
        if has_projection(config):
            self.bert.embeddings = ProjectedEmbeddings(config)
        self.post_init()  # type: ignore[no-untyped-call]


def head_activation(config: PreTrainedConfig) -> str:
    """Of the layer before the classifier: ``tanh``, ``relu`` or ``gelu``."""
    return str(getattr(config, "head_activation", "tanh"))


def has_projection(config: PreTrainedConfig) -> bool:
    """Whether the embeddings are projected to the hidden size."""
    return bool(getattr(config, "embedding_size", config.hidden_size) != config.hidden_size)


def classifier_class(config: PreTrainedConfig) -> type[BertForSequenceClassification]:
    """BERT's own class where it computes what the configuration says, so that other programs load what is saved."""
    is_plain = head_activation(config) == "tanh" and not has_projection(config)
    return BertForSequenceClassification if is_plain else AdaptedBertForSequenceClassification


def new_classifier(config: PreTrainedConfig) -> BertForSequenceClassification:
    """A model with new weights; eager attention returns the probabilities that equation 8 compares."""
    model: BertForSequenceClassification = classifier_class(config)._from_config(config, attn_implementation="eager")
    return model
