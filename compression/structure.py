"""The student's shape before its matrices are cut: how many feed-forward neurons it has, and which activation.

Ranks do not make the feed-forward block narrower: its activations are computed at the teacher's full width however
low the rank of what comes before and after. Neurons that are gone are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification
from transformers.activations import ACT2FN
from transformers.models.bert.modeling_bert import BertLayer

from compression.factorise import DAMPING, InputMoments
from compression.recipe import StructureRecipe


def neurons_kept(intermediate_size: int, recipe: StructureRecipe) -> int:
    """Neurons that stay of each layer's, a multiple of 16 where there are as many: kernels work on 16 at a time."""
    kept = max(1, round(recipe.neurons * intermediate_size))
    return intermediate_size if recipe.neurons == 1 else max(16, round(kept / 16) * 16) if kept >= 8 else kept


@torch.no_grad()
def narrow(
    teacher: BertForSequenceClassification, recipe: StructureRecipe, moments: Mapping[str, InputMoments]
) -> BertForSequenceClassification:
    """A copy of the teacher with the share ``recipe.neurons`` of every layer's feed-forward neurons.

    Those stay whose activations move the layer's output most; the second matrix is fitted anew, by least squares, so
    that they stand in for the ones that went.

    Args:
        teacher: stays as it is.
        recipe: the share.
        moments: of the inputs of every layer's ``output.dense``; a layer without keeps its first neurons as they are,
            which is enough to time a student.
    """
    model = copy.deepcopy(teacher)
    kept = neurons_kept(model.config.intermediate_size, recipe)
    if kept >= model.config.intermediate_size:
        return model
    for index, layer in enumerate(_layers(model)):
        _narrow_layer(layer, kept, moments.get(f"bert.encoder.layer.{index}.output.dense"))
    model.config.intermediate_size = kept
    return model


def set_activation(model: BertForSequenceClassification, recipe: StructureRecipe) -> None:
    """Gives every feed-forward block the recipe's activation, in place."""
    if recipe.activation != "teacher":
        model.config.hidden_act = recipe.activation
        for layer in _layers(model):
            layer.intermediate.intermediate_act_fn = ACT2FN[recipe.activation]


def _layers(model: BertForSequenceClassification) -> list[BertLayer]:
    return [layer for layer in model.bert.encoder.layer if isinstance(layer, BertLayer)]


def _narrow_layer(layer: BertLayer, kept: int, moments: InputMoments | None) -> None:
    inner, outer = layer.intermediate.dense, layer.output.dense
    weight, bias = outer.weight.double(), outer.bias.double()  # (H, F), (H,)
    if moments is None:
        chosen = torch.arange(kept, device=weight.device)
        weight = weight[:, chosen]
    else:
        covariance = moments.second - torch.outer(moments.mean, moments.mean)  # (F, F)
        moved = covariance.diagonal() * weight.square().sum(dim=0)
        chosen = moved.topk(kept).indices.sort().values
        among = covariance[chosen][:, chosen]
        among.diagonal().add_(DAMPING * among.diagonal().mean() + 1e-12)
        fitted = torch.linalg.solve(among, covariance[chosen] @ weight.T).T  # W·C[:, S]·C[S, S]⁻¹, (H, S)
        bias = bias + weight @ moments.mean - fitted @ moments.mean[chosen]
        weight = fitted
    layer.intermediate.dense = _linear(inner.weight[chosen], inner.bias[chosen])
    layer.output.dense = _linear(weight, bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    return linear
