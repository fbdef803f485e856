"""Classifiers that read words and not their order: TF-IDF, and a static embedding of each token."""

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from ladabert_compress.data.batches import Batch
from ladabert_compress.measure.inference import forward
from ladabert_compress.measure.predictions import Logits, Predictions
from ladabert_compress.teacher.folder import Teacher

DIMENSIONS = 256  # Model2Vec's own
TOKENS_AT_ONCE = 256
SIF = 1e-4  # Model2Vec's own weight of rare tokens (Arora et al. 2017)
FLOAT_BYTES = 4
ITERATIONS = 1000

Array = npt.NDArray[np.float32]


class TextClassifier(Protocol):
    """What answers to texts as they are."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of its numbers in fp32 and of its words."""

    def logits(self, texts: Sequence[str]) -> Logits:
        """Logits (N, labels)."""


class TfIdf:
    """Words and pairs of words, weighted by how few texts have them, under logistic regression."""

    def __init__(self, texts: Sequence[str], labels: Predictions) -> None:
        self._features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=min(2, len(texts)))
        self._head = LogisticRegression(C=10.0, max_iter=ITERATIONS)
        self._head.fit(self._features.fit_transform(texts), labels)

    @property
    def stored_bytes(self) -> int:
        """The vocabulary, a weight of each of its entries, and the coefficients."""
        words = sum(len(word.encode()) + 1 for word in self._features.vocabulary_)
        return int(words + FLOAT_BYTES * (len(self._features.vocabulary_) + self._head.coef_.size))

    def logits(self, texts: Sequence[str]) -> Logits:
        """Logits (N, labels)."""
        return as_logits(self._head.decision_function(self._features.transform(texts)))


class StaticEmbeddings:
    """The mean of a vector for each token, as Model2Vec distils them from an encoder, under logistic regression."""

    def __init__(self, teacher: Teacher, texts: Sequence[str], labels: Predictions) -> None:
        self._tokenizer = teacher.tokenizer
        self._vectors = token_vectors(teacher)
        self._head = LogisticRegression(C=10.0, max_iter=ITERATIONS)
        self._head.fit(self._means(texts), labels)

    @property
    def stored_bytes(self) -> int:
        """The table, the tokenizer's words, and the coefficients."""
        words = sum(len(word.encode()) + 1 for word in self._tokenizer.get_vocab())
        return int(words + FLOAT_BYTES * (self._vectors.size + self._head.coef_.size))

    def logits(self, texts: Sequence[str]) -> Logits:
        """Logits (N, labels)."""
        return as_logits(self._head.decision_function(self._means(texts)))

    def _means(self, texts: Sequence[str]) -> Array:
        """The mean vector of each text's tokens, of length one, (N, dimensions)."""
        ids = self._tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        means = np.zeros((len(ids), self._vectors.shape[1]), dtype=np.float32)
        for row, tokens in enumerate(ids):
            if tokens:
                means[row] = self._vectors[tokens].mean(axis=0)
        norms: Array = np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return means / norms


def token_vectors(teacher: Teacher, dimensions: int = DIMENSIONS) -> Array:
    """Return a vector for each token (V, dimensions), as Model2Vec makes them of a sentence encoder.

    Each token passes through the encoder by itself, between the special tokens, and the mean of the last hidden state
    is its vector. The main components of all of them are kept. Rare tokens count more: BERT's ids are in the order of
    frequency, so that Zipf's law says how often one occurs.
    """
    model, tokenizer = teacher.model.eval(), teacher.tokenizer
    ids = torch.arange(len(tokenizer))
    parts: list[Array] = []
    with torch.inference_mode():
        for some in tqdm(ids.split(TOKENS_AT_ONCE), desc="static embeddings", unit="batch"):
            outputs = forward(model, between_special_tokens(tokenizer, some), output_hidden_states=True)
            parts.append(outputs.hidden_states[-1].mean(dim=1).float().numpy())
    vectors = np.concatenate(parts)
    kept = PCA(min(dimensions, *vectors.shape), random_state=0).fit_transform(vectors)
    shares = 1 / (np.arange(len(vectors)) + 2)
    weights = SIF / (SIF + shares / shares.sum())
    weighted: Array = (kept * weights[:, None]).astype(np.float32)
    return weighted


def between_special_tokens(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> Batch:
    """Return a batch of one token a row, (N, 3)."""
    first, last = (int(token or 0) for token in (tokenizer.cls_token_id, tokenizer.sep_token_id))
    rows = torch.stack([torch.full_like(ids, first), ids, torch.full_like(ids, last)], dim=1)
    return Batch(rows, torch.ones_like(rows), torch.zeros_like(rows), ids)


def as_logits(decisions: npt.NDArray[np.float64]) -> Logits:
    """Return logits (N, labels) of scikit-learn's decisions, which are (N,) where there are two labels."""
    if decisions.ndim == 1:
        decisions = np.stack([np.zeros_like(decisions), decisions], axis=1)
    return decisions.astype(np.float32)


class TextRunner:
    """A text classifier among graphs that are timed by batches of tokens: it gets texts of about as many words."""

    def __init__(self, classifier: TextClassifier, texts: Sequence[str]) -> None:
        self._classifier = classifier
        self._words = [word for text in texts for word in re.findall(r"\w+", text)]
        self._made: dict[tuple[int, int], list[str]] = {}

    def logits(self, batch: Batch) -> Logits:
        """Logits of texts that stand for the batch; the first run at a shape makes them, and warms up."""
        count, tokens = batch.input_ids.shape
        return self._classifier.logits(self._made.setdefault((count, tokens), self._texts(count, tokens - 2)))

    def _texts(self, count: int, words: int) -> list[str]:
        places = range(0, count * words, words)
        return [" ".join(self._words[(place + i) % len(self._words)] for i in range(words)) for place in places]
