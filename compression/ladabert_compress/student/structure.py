"""The student's shape before its matrices are cut: its layers, their attention heads, neurons and activation.

Low ranks make no layer narrower, and no network shallower: it still computes every head's scores and every neuron's
activation, one layer after the other. Only taking layers, heads and neurons out saves that work.

The configuration keeps the teacher's number of heads, from which the size of a head follows. How many heads a layer has
follows from its matrices.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification
from transformers.activations import ACT2FN
from transformers.models.bert.modeling_bert import BertLayer

from ladabert_compress.recipe import StructureRecipe
from ladabert_compress.student.factors import InputMoments, damped_covariance


@dataclass(frozen=True)
class Shaped:
    """A smaller copy of the teacher.

    ``layers`` are those of the teacher's that stayed, and ``heads``, for each of them, which of its heads did.
    """

    model: BertForSequenceClassification
    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]


Observe = Callable[[BertForSequenceClassification], Mapping[str, InputMoments]]


def layers_kept(layers: int, recipe: StructureRecipe) -> tuple[int, ...]:
    """Which of the teacher's layers stay, counted from 0: evenly spread, the last one among them."""
    kept = max(1, round(recipe.layers * layers))
    return tuple(index * layers // kept - 1 for index in range(1, kept + 1))


def heads_kept(heads: int, recipe: StructureRecipe) -> int:
    """Attention heads that stay of each layer's, at least one."""
    return max(1, round(recipe.heads * heads))


def neurons_kept(intermediate_size: int, recipe: StructureRecipe) -> int:
    """Neurons that stay of each layer's, a multiple of 16 where there are as many: kernels work on 16 at a time."""
    kept = max(1, round(recipe.neurons * intermediate_size))
    return intermediate_size if recipe.neurons == 1 else max(16, round(kept / 16) * 16) if kept >= 8 else kept


@torch.no_grad()
def narrow(teacher: BertForSequenceClassification, recipe: StructureRecipe, observe: Observe | None = None) -> Shaped:
    """A copy of the teacher with the recipe's share of layers, and of each one's attention heads and neurons.

    The heads and neurons that change their layer's output most stay. The matrix that reads them is fitted anew by least
    squares, which makes up for the others.

    Args:
        teacher: stays as it is.
        recipe: the shares.
        observe: finds the moments of the inputs of every layer's ``attention.output.dense`` and ``output.dense`` in the
            model whose layers are out already. Without it the first heads and neurons stay as they are, which is
            enough to time a student.
    """
    model = copy.deepcopy(teacher)
    config = model.config
    layers = layers_kept(config.num_hidden_layers, recipe)
    model.bert.encoder.layer = nn.ModuleList(model.bert.encoder.layer[index] for index in layers)
    config.num_hidden_layers = len(layers)
    is_narrower = min(recipe.heads, recipe.neurons) < 1
    moments = observe(model) if observe is not None and is_narrower else {}
    heads, neurons = config.num_attention_heads, config.intermediate_size
    fewer_heads, fewer_neurons = heads_kept(heads, recipe), neurons_kept(neurons, recipe)
    chosen = [tuple(range(heads))] * len(layers)
    for index, layer in enumerate(_layers(model)):
        name = f"bert.encoder.layer.{index}"
        if fewer_heads < heads:
            size = config.hidden_size // heads
            chosen[index] = _take_heads_out(layer, fewer_heads, size, moments.get(f"{name}.attention.output.dense"))
        if fewer_neurons < neurons:
            _take_neurons_out(layer, fewer_neurons, moments.get(f"{name}.output.dense"))
    config.intermediate_size = min(neurons, fewer_neurons)
    return Shaped(model, layers, tuple(chosen))


def set_activation(model: BertForSequenceClassification, recipe: StructureRecipe) -> None:
    """Gives every feed-forward block the recipe's activation, in place."""
    if recipe.activation != "teacher":
        model.config.hidden_act = recipe.activation
        for layer in _layers(model):
            layer.intermediate.intermediate_act_fn = ACT2FN[recipe.activation]


def _layers(model: BertForSequenceClassification) -> list[BertLayer]:
    return [layer for layer in model.bert.encoder.layer if isinstance(layer, BertLayer)]


def _take_heads_out(layer: BertLayer, kept: int, size: int, moments: InputMoments | None) -> tuple[int, ...]:
    attention, output = layer.attention.self, layer.attention.output
    count = output.dense.in_features // size
    heads = list(range(kept)) if moments is None else choose_heads(output.dense, moments, size, kept)
    columns = torch.arange(count * size).view(count, size)[heads].flatten().to(output.dense.weight.device)
    for name in ("query", "key", "value"):
        setattr(attention, name, _rows(getattr(attention, name), columns))
    output.dense = _columns(output.dense, columns, moments)
    return tuple(heads)


def choose_heads(output: nn.Linear, moments: InputMoments, size: int, kept: int) -> list[int]:
    """The heads that stay; those that the others can replace best are taken out, one after the other.

    Taking the columns b out of a least-squares fit W of an output on inputs of covariance C adds
    tr(W_b·((C⁻¹)_bb)⁻¹·W_bᵀ) to its squared error, in which the other heads count (optimal brain surgeon).

    Args:
        output: what reads the heads, (H, heads·size).
        moments: of its inputs.
        size: columns of each head.
        kept: how many stay.
    """
    weight, covariance = output.weight.detach().double(), damped_covariance(moments)
    heads = list(range(output.in_features // size))
    while len(heads) > kept:
        columns = torch.cat([torch.arange(head * size, (head + 1) * size) for head in heads]).to(weight.device)
        inverse = torch.linalg.inv(covariance[columns][:, columns])
        fitted = weight @ covariance[:, columns] @ inverse  # (H, heads·size)
        blocks = torch.stack([inverse[i : i + size, i : i + size] for i in range(0, len(columns), size)])
        parts = fitted.view(len(fitted), len(heads), size).permute(1, 2, 0)  # (heads, size, H)
        added = (parts * torch.linalg.solve(blocks, parts)).sum(dim=(1, 2))
        del heads[int(added.argmin())]
    return heads


def _take_neurons_out(layer: BertLayer, kept: int, moments: InputMoments | None) -> None:
    inner, outer = layer.intermediate, layer.output
    if moments is None:
        chosen = torch.arange(kept, device=outer.dense.weight.device)
    else:
        variance = moments.second.diagonal() - moments.mean.square()
        moved = variance * outer.dense.weight.double().square().sum(dim=0)
        chosen = moved.topk(kept).indices.sort().values
    inner.dense = _rows(inner.dense, chosen)
    outer.dense = _columns(outer.dense, chosen, moments)


def _rows(linear: nn.Linear, chosen: Tensor) -> nn.Linear:
    """The layer with these of its outputs."""
    return _linear(linear.weight[chosen], linear.bias[chosen])


def _columns(linear: nn.Linear, chosen: Tensor, moments: InputMoments | None) -> nn.Linear:
    """The layer on these of its inputs, fitted to what it computed on all of them where their moments are known."""
    if moments is None:
        return _linear(linear.weight[:, chosen], linear.bias)
    weight, covariance = linear.weight.double(), damped_covariance(moments)
    fitted = torch.linalg.solve(covariance[chosen][:, chosen], covariance[chosen] @ weight.T).T  # W·C[:, S]·C[S, S]⁻¹
    bias = linear.bias.double() + weight @ moments.mean - fitted @ moments.mean[chosen]
    return _linear(fitted, bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    return linear
