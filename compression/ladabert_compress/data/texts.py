"""Texts and their labels, as rows of a table have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

LABEL_SEPARATOR = ","  # between the labels of a multi-label row


@dataclass(frozen=True)
class Texts:
    """Rows in file order; ``pairs`` is ``None`` for a single-text task."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    places: tuple[str, ...] = field(default=(), compare=False, kw_only=True)  # FILE:LINE of each row
    notes: tuple[str, ...] = field(default=(), compare=False, kw_only=True)  # columns first, then what a reader noticed

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def task(self) -> str:
        """``single`` or ``pair``, as the manifest names it."""
        return "single" if self.pairs is None else "pair"

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return self.places[row] if self.places else f"row {row + 1}"

    def select(self, rows: Sequence[int]) -> Self:
        """The named rows alone."""
        return replace(
            self,
            texts=tuple(self.texts[row] for row in rows),
            pairs=None if self.pairs is None else tuple(self.pairs[row] for row in rows),
            places=tuple(self.place(row) for row in rows),
        )


@dataclass(frozen=True)
class LabelledTexts(Texts):
    """Rows with their labels as they stand in the file.

    Several labels of one row are one string with commas, none is the empty string.
    """

    labels: tuple[str, ...]

    def select(self, rows: Sequence[int]) -> Self:
        """The named rows alone."""
        return replace(super().select(rows), labels=tuple(self.labels[row] for row in rows))


def concatenate(parts: Sequence[Texts]) -> Texts:
    """The rows of all parts in their order, without labels; the parts are of one task."""
    return Texts(
        tuple(text for part in parts for text in part.texts),
        None if parts[0].pairs is None else tuple(text for part in parts for text in part.pairs or ()),
        places=tuple(part.place(row) for part in parts for row in range(len(part))),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )
