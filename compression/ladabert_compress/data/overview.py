"""What was found in the rows, for people to read before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from transformers import PreTrainedTokenizerBase

from ladabert_compress.data.labels import labels_of_row
from ladabert_compress.data.texts import LabelledTexts, Texts

LENGTH_ROWS = 2000  # of which the tokens are counted, evenly spaced
LISTED_LABELS = 10
MOST_NUMBERS = 20  # as labels; more of them are rather scores


def describe_sources(
    sources: Mapping[str, Texts | None],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    longest: int,
    *,
    problem_type: str = "single_label",
) -> str:
    """Columns, rows, labels and lengths of each source by its option, and its rows that stand in ``--train`` too.

    Args:
        sources: the rows by option; ``None`` where it was left out.
        tokenizer: counts the tokens of a sample of the rows.
        max_length: tokens at which a row is cut.
        longest: the most tokens that the model could read.
        problem_type: what a label is, as the manifest names it.
    """
    lines: list[str] = []
    train = sources.get("--train")
    for option, texts in sources.items():
        if texts is None:
            continue
        columns, *notes = texts.notes or ("rows as given",)
        lines.append(f"{option}: {len(texts):,} rows; {columns}")
        lines.append("  " + _lengths(texts, tokenizer, max_length, longest))
        if isinstance(texts, LabelledTexts):
            lines += [f"  {line}" for line in _labels(texts, problem_type)]
        lines += [f"  {note}" for note in notes]
        if train is not None and option != "--train" and (shared := _shared_rows(texts, train)):
            lines.append(f"  warning: {shared:,} of these rows stand in --train too; figures on them flatter")
    return "\n".join(lines)


def _lengths(texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int, longest: int) -> str:
    sample = texts.select(range(len(texts))[:: max(1, -(-len(texts) // LENGTH_ROWS))])
    pairs = None if sample.pairs is None else list(sample.pairs)
    encoded = tokenizer(list(sample.texts), pairs, truncation=False, return_attention_mask=False, verbose=False)
    counts = np.array([len(row) for row in encoded["input_ids"]])
    described = f"tokens: median {np.median(counts):.0f}, longest {counts.max():,}"
    if len(sample) < len(texts):
        described += f" of {len(sample):,} rows looked at"
    cut = float((counts > max_length).mean())
    if not cut:
        return f"{described}; none is cut at {max_length}"
    cure = f"; raise --max-length, up to {longest}" if longest > max_length else ", and the model reads no more"
    return f"{described}\n  warning: {cut:.1%} of the rows are cut at {max_length} tokens{cure}"


def _labels(texts: LabelledTexts, problem_type: str) -> Iterator[str]:
    if problem_type == "regression" and all(map(_is_number, texts.labels)):
        scores = np.array(texts.labels, dtype=np.float64)
        yield f"scores: mean {scores.mean():.3g}, from {scores.min():.3g} to {scores.max():.3g}"
        return
    split = ((labels_of_row(label) or [""]) if problem_type == "multi_label" else [label] for label in texts.labels)
    counts = Counter(label for labels in split for label in labels)
    listed = ", ".join(f"{label or '(none)'} {count:,}" for label, count in counts.most_common(LISTED_LABELS))
    more = len(counts) - LISTED_LABELS
    yield f"labels: {listed}" + (f" and {more:,} more" if more > 0 else "")
    if len(counts) == 1:
        yield f"warning: every row has the label {next(iter(counts))!r}; figures on these rows say nothing of others"
    if len(counts) > MOST_NUMBERS and all(map(_is_number, counts)):
        yield (
            f"warning: the labels are {len(counts):,} different numbers; if they are scores, fine-tune with "
            "--regression or put them into a few classes, or name another column with --label"
        )


def _shared_rows(texts: Texts, train: Texts) -> int:
    known = set(zip(train.texts, train.pairs or train.texts, strict=True))
    return sum(row in known for row in zip(texts.texts, texts.pairs or texts.texts, strict=True))


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
