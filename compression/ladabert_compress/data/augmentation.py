"""More varied rows for a student to learn from, which the teacher labels as it labels all others."""

from __future__ import annotations

import numpy as np

from ladabert_compress.data.texts import Texts

MOST_APPENDED = 2  # rows


def join_rows(texts: Texts, share: float, *, seed: int, epoch: int) -> Texts:
    """The same rows, of which about ``share`` have one or two others appended: a function of its arguments alone.

    A pair's first texts are joined, and so are its second texts. The result has no labels: the first row's need not be
    the whole's.
    """
    generator = np.random.default_rng((seed, epoch))
    appended = generator.integers(1, MOST_APPENDED, size=len(texts), endpoint=True)
    appended[generator.random(len(texts)) >= share] = 0
    others = generator.integers(len(texts), size=(len(texts), MOST_APPENDED))
    groups = [(row, *chosen[:count]) for row, (chosen, count) in enumerate(zip(others, appended, strict=True))]
    return Texts(_joined(texts.texts, groups), None if texts.pairs is None else _joined(texts.pairs, groups))


def _joined(texts: tuple[str, ...], groups: list[tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(" ".join(texts[row] for row in group) for group in groups)
