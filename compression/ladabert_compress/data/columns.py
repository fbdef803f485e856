"""Which columns of a table are the text, the second text and the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ladabert_compress.errors import DataError

# The names that GLUE, SuperGLUE, SNLI and common exports give their columns, in small letters.
PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("#1 string", "#2 string"),
)
SINGLES = (
    *("sentence", "text", "review", "review_text", "content", "comment", "comment_text", "tweet", "message", "body"),
    *("document", "title", "headline", "description"),
)
TEXTS = dict.fromkeys((*SINGLES, *(name for pair in PAIRS for name in pair)))
CERTAIN_LABELS = ("label", "gold_label", "is_duplicate", "quality")
LABELS = (
    *("labels", "class", "category", "sentiment", "target", "stars", "star_rating", "rating", "score", "polarity"),
    *("intent", "topic", "emotion", "toxic"),
)


@dataclass(frozen=True)
class Columns:
    """The columns to read; ``None`` means: find it by its name."""

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


BY_NAME = Columns()


@dataclass(frozen=True)
class Chosen:
    """The columns that are read, by the names that the table gives them, and those that are not."""

    text: str
    text_pair: str | None
    label: str | None
    unread: tuple[str, ...]

    def __str__(self) -> str:
        read = [self.text, *([self.text_pair] if self.text_pair else []), *([self.label] if self.label else [])]
        return f"columns {', '.join(read)}" + (f"; not read: {', '.join(self.unread)}" if self.unread else "")


def choose_columns(source: str, present: Sequence[str], columns: Columns, *, labelled: bool) -> Chosen:
    """The columns to read of those that a table has; letters may be small or capital.

    A second text is never dropped in silence: two texts are a pair that is known, or the choice is the user's.

    Raises:
        DataError: a column is missing, or more than one may be meant.
    """
    text, pair = _choose_texts(source, present, columns)
    label = _choose_label(source, present, columns) if labelled else None
    return Chosen(text, pair, label, tuple(name for name in present if name not in (text, pair, label)))


def _choose_texts(source: str, present: Sequence[str], columns: Columns) -> tuple[str, str | None]:
    pair = _named(source, present, "--text-pair", columns.text_pair)
    if text := _named(source, present, "--text", columns.text):
        return text, pair
    known = {name.casefold(): name for name in reversed(present)}
    found = [known[name] for name in TEXTS if name in known and known[name] != pair]
    pairs = [(known[one], known[other]) for one, other in PAIRS if one in known and other in known]
    if pair is None and len(pairs) == 1 and len(found) == 2:
        return pairs[0]
    if len(found) == 1:
        return found[0], pair
    if not found:
        headless = any(not name or name.isdecimal() for name in present)
        cure = " (or does the first line name no columns? CoLA's files lack it: source, label, star, sentence)"
        raise DataError(
            f"{source}: no text column among {_listed(present)}; name it with --text{cure if headless else ''}"
        )
    one, other = pairs[0] if pairs else found[:2]
    choices = " or ".join(f"--text {_quoted(name)}" for name in found)
    raise DataError(
        f"{source}: {_listed(found)} may all be the text; choose one with {choices}, or a pair as in "
        f"--text {_quoted(one)} --text-pair {_quoted(other)}"
    )


def _choose_label(source: str, present: Sequence[str], columns: Columns) -> str:
    if label := _named(source, present, "--label", columns.label):
        return label
    known = {name.casefold(): name for name in reversed(present)}
    for name in CERTAIN_LABELS:
        if name in known:
            return known[name]
    found = [known[name] for name in LABELS if name in known]
    if not found:
        raise DataError(f"{source}: no label column among {_listed(present)}; name it with --label")
    if len(found) > 1:
        choices = " or ".join(f"--label {_quoted(name)}" for name in found)
        raise DataError(f"{source}: {_listed(found)} may all be the label; choose with {choices}")
    return found[0]


def _named(source: str, present: Sequence[str], option: str, name: str | None) -> str | None:
    """The column that an option names: exactly, or but for capital letters where that is one column."""
    if name is None or name in present:
        return name
    alike = [column for column in present if column.casefold() == name.casefold()]
    if len(alike) != 1:
        raise DataError(f"{source}: no column {name!r} ({option}); it has {_listed(present)}")
    return alike[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name
