"""Tokens to logits: pads a batch, runs the backend and checks its output."""

import logging
import math
from collections.abc import Sequence

import numpy as np

from ladabert_serve.backends.backend import Backend
from ladabert_serve.errors import InferenceError, ModelFailedError
from ladabert_serve.models.artefact import Artefact
from ladabert_serve.models.tokenizer import TextInput, TextTokenizer, Tokens

logger = logging.getLogger(__name__)

Logits = list[float]

# Allowed difference from the exported logits, as a share of their size. Half precision differs by a few hundredths,
# int8 kernels that saturate by four tenths and more.
SELF_TEST_LIMIT = 0.2


class Inference:
    """One artefact's tokenizer and graph; called from several threads at once."""

    def __init__(self, artefact: Artefact, tokenizer: TextTokenizer, backend: Backend, memory_bytes: int = 0) -> None:
        self.artefact = artefact
        self.memory_bytes = memory_bytes  # of the graph and the tokenizer, each copy counted
        self.tokenizer = tokenizer
        self.backend = backend
        self._reads_types = "token_type_ids" in artefact.inputs

    def run(self, batch: Sequence[Tokens]) -> Sequence[Logits | Exception]:
        """Return each input's logits, or ModelFailedError for a row that is not finite; raises InferenceError."""
        shape = (len(batch), max(len(tokens.ids) for tokens in batch))  # (B, T)
        input_ids = np.full(shape, self.tokenizer.pad_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        token_type_ids = np.zeros(shape, dtype=np.int64)
        for row, tokens in enumerate(batch):
            length = len(tokens.ids)
            input_ids[row, :length] = tokens.ids
            attention_mask[row, :length] = 1
            if self._reads_types:
                token_type_ids[row, :length] = tokens.type_ids
        logits = self.backend.run(input_ids, attention_mask, token_type_ids)  # (B, labels)
        expected = (len(batch), len(self.artefact.labels))
        if logits.shape != expected:
            raise InferenceError(f"the graph's output has shape {logits.shape}, not {expected}")
        rows: list[Logits] = logits.tolist()
        finite: list[bool] = np.logical_and.reduce(np.isfinite(logits), axis=1).tolist()
        if all(finite):
            return rows
        if not any(finite):
            raise InferenceError("the graph's output holds no row of finite numbers")
        name = self.artefact.name
        logger.error("model %s gave logits that are not finite", name)
        failed = ModelFailedError(name, "its logits are not finite")
        return [row if is_finite else failed for row, is_finite in zip(rows, finite, strict=True)]

    def warm_up(self) -> None:
        """Run a short and a full-length input; raises InferenceError."""
        pair = "warm" if self.artefact.task == "pair" else None
        for text in ("warm", "warm " * self.artefact.max_length):
            self.run([self.tokenizer.tokenize(TextInput(text, pair))])

    def self_test(self, graph_file: str) -> None:
        """Compare the backend's logits with those at the graph's export; raises InferenceError.

        An artefact without a self-test passes.
        """
        sample = self.artefact.manifest.get("self_test", {"logits": {}})
        if graph_file not in sample["logits"]:
            return
        try:
            expected = np.array(sample["logits"][graph_file], dtype=np.float64)  # (B, labels)
            input_ids = np.array(sample["input_ids"], dtype=np.int64)  # (B, T)
        except ValueError as error:
            raise InferenceError("the manifest's self_test has rows of different lengths; export it again") from error
        logits = self.backend.run(input_ids, np.ones_like(input_ids), np.zeros_like(input_ids))
        if logits.shape != expected.shape:
            raise InferenceError(f"the manifest's self_test has logits of shape {expected.shape}, not {logits.shape}")
        size = float(np.linalg.norm(expected))
        off_by = float(np.linalg.norm(logits - expected)) / size if size else math.inf
        if not off_by <= SELF_TEST_LIMIT:
            raise InferenceError(
                f"it does not compute here what it computed at its export: the logits of the manifest's self_test are "
                f"off by {off_by:.0%} of their size, {SELF_TEST_LIMIT:.0%} are allowed; serve another of its graphs "
                "(LADABERT_PRECISION, LADABERT_PROVIDER), or export it on this kind of machine"
            )
