"""Takes tokens that nobody reads out of a student: rows of its word table, and entries of its tokenizer."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ladabert_compress.data.batches import EncodedTexts, encode
from ladabert_compress.errors import OptionError
from ladabert_compress.student.masks import SUFFIX
from ladabert_compress.student.student import Student
from ladabert_compress.training.run import CompressionResult

WORD_TABLE = "bert.embeddings.word_embeddings"
OPTION = "--trim-vocabulary"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that stay, by the ids that they had, and the tokenizer that numbers them anew in the same order."""

    kept: tuple[int, ...]
    tokenizer: PreTrainedTokenizerFast

    def renumbered(self, rows: EncodedTexts) -> EncodedTexts:
        """Rows that read no other token, by the new ids."""
        new = np.full(max(self.kept) + 1, -1, dtype=np.int32)
        new[list(self.kept)] = np.arange(len(self.kept))
        return replace(rows, token_ids=new[rows.token_ids], pad_token_id=int(new[rows.pad_token_id]))


def check_can_be_trimmed(tokenizer: PreTrainedTokenizerBase) -> None:
    """Checks before a long run that the tokenizer is one whose tokens can be taken out.

    Raises:
        OptionError: it is not WordPiece, or its template is of another kind than BERT's.
    """
    trimmed_tokenizer(tokenizer, range(len(tokenizer)))


def trim(result: CompressionResult, words: Sequence[str]) -> CompressionResult:
    """The run with a student that knows the tokens of its training rows and of these words alone.

    Other words are read in smaller pieces. Those of one character always stay, so that no word becomes unknown by it.
    Texts of training rows are read as before, and the student answers the same to them.

    Raises:
        OptionError: the tokenizer is not one whose tokens can be taken out.
    """
    tokenizer = result.teacher.tokenizer
    read = set(result.train_data.token_ids.tolist()) | set(result.held_out.data.token_ids.tolist())
    kept = sorted(read | _tokens_of(tokenizer, words) | _always_kept(tokenizer))
    vocabulary = Vocabulary(tuple(kept), trimmed_tokenizer(tokenizer, kept))
    return replace(
        result,
        teacher=replace(result.teacher, tokenizer=vocabulary.tokenizer),
        student=_with_rows(result.student, kept),
        train_data=vocabulary.renumbered(result.train_data),
        held_out=replace(result.held_out, data=vocabulary.renumbered(result.held_out.data)),
        dev_data=encode(result.dev_texts, result.dev_data.labels, vocabulary.tokenizer, result.max_length),
    )


def trimmed_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: Iterable[int]) -> PreTrainedTokenizerFast:
    """The tokenizer with these tokens alone, numbered in their order.

    Raises:
        OptionError: it is not WordPiece, or its template is of another kind than BERT's.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "WordPiece":
        raise OptionError(f"{OPTION}: takes tokens out of WordPiece vocabularies; this teacher's is {model['type']}")
    new = {old: index for index, old in enumerate(kept)}
    model["vocab"] = {token: new[old] for token, old in model["vocab"].items() if old in new}
    described["added_tokens"] = [{**entry, "id": new[entry["id"]]} for entry in described["added_tokens"]]
    described["post_processor"] = _renumbered_template(described["post_processor"], new)
    described["padding"] = described["truncation"] = None
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(described)), **special)


def _renumbered_template(template: Mapping[str, Any] | None, new: Mapping[int, int]) -> dict[str, Any] | None:
    """What puts special tokens around a text, by their new ids."""
    if template is None:
        return None
    if template["type"] == "TemplateProcessing":
        special = {
            name: {**entry, "ids": [new[token] for token in entry["ids"]]}
            for name, entry in template["special_tokens"].items()
        }
        return {**template, "special_tokens": special}
    if template["type"] == "BertProcessing":
        return {**template, **{key: [template[key][0], new[template[key][1]]] for key in ("sep", "cls")}}
    raise OptionError(f"{OPTION}: this teacher's tokenizer has a {template['type']}; it takes BERT's alone")


def _always_kept(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Special tokens, and the pieces of one character, at the beginning of a word and within it."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    inner = described["model"]["continuing_subword_prefix"]
    pieces = {old for token, old in described["model"]["vocab"].items() if len(token.removeprefix(inner)) == 1}
    return pieces | {entry["id"] for entry in described["added_tokens"]} | set(tokenizer.all_special_ids)


def _tokens_of(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> set[int]:
    if not words:
        return set()
    return {token for ids in tokenizer(list(words), add_special_tokens=False)["input_ids"] for token in ids}


def _with_rows(student: Student, kept: Sequence[int]) -> Student:
    """A copy of the student whose word table has these rows alone."""
    trimmed = copy.deepcopy(student)
    module, rows = trimmed.model.get_submodule(WORD_TABLE), torch.tensor(kept)
    name = "weight" if isinstance(module, nn.Embedding) else "left"
    setattr(module, name, nn.Parameter(_rows(module.get_parameter(name), rows)))
    mask = getattr(module, name + SUFFIX, None)
    if mask is not None:
        module.register_buffer(name + SUFFIX, _rows(mask, rows))
    if isinstance(module, nn.Embedding):
        module.num_embeddings = len(kept)
        module.padding_idx = None  # which only tells a gradient where to stop
    trimmed.model.config.vocab_size = len(kept)
    return trimmed


def _rows(table: Tensor, rows: Tensor) -> Tensor:
    return table.detach()[rows.to(table.device)].clone()
