"""Rows of data sets from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ladabert_compress.data.tables import Row
from ladabert_compress.errors import DataError

# The split to report on, the first that a data set has. The labels of GLUE's test sets are hidden.
EVALUATION_SPLITS = ("validation", "validation_matched", "dev", "test")
# Configurations of SuperGLUE whose rows are more than a text or a pair with one label.
NO_CLASSIFICATION = ("copa", "multirc", "record", "wsc", "wsc.fixed")


def hub_rows(source: str, *, training: bool) -> Iterator[tuple[int, Row]]:
    """The rows of ``NAME[/CONFIG][:SPLIT]``; without a split, those to train on or those to report on.

    Labels are the names that the data set gives them; -1, where a label is hidden or missing, stays.

    Raises:
        DataError: there is no such data set or split, it cannot be reached, or it is no classification.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError("hub: data needs the extra `hub`: pip install 'ladabert[hub]'") from error
    name, _, split = source.partition(":")
    if "super_glue/" in name and name.rpartition("/")[2] in NO_CLASSIFICATION:
        raise DataError(f"hub:{name}: is no classification of one text or a pair; boolq, cb, rte and wic are")
    path, splits = _find(datasets, name)
    split = split or next((known for known in (["train"] if training else EVALUATION_SPLITS) if known in splits), "")
    if split not in splits:
        raise DataError(f"hub:{source}: no such split; choose one of {', '.join(splits)} with hub:{name}:SPLIT")
    try:
        rows = datasets.load_dataset(*path, split=split)
    except (OSError, ValueError) as error:
        raise DataError(f"hub:{source}: cannot be loaded: {_first_line(error)}") from error
    names = {column: feature.names for column, feature in rows.features.items() if getattr(feature, "names", None)}
    for row_number, row in enumerate(rows, start=1):
        yield row_number, {column: _label_name(names.get(column), value) for column, value in row.items()}


def _find(datasets: Any, name: str) -> tuple[tuple[str, ...], Sequence[str]]:
    """The data set and configuration that ``name`` means, and its splits.

    `glue/sst2` is a data set and its configuration, `stanfordnlp/sst2` an owner and a data set: only the hub knows
    which, so the configuration is what follows the last slash if the whole is unknown.
    """
    owner, _, configuration = name.rpartition("/")
    failure: Exception | None = None
    for path in ((name,), (owner, configuration)) if owner else ((name,),):
        try:
            return path, datasets.get_dataset_split_names(*path)
        except (OSError, ValueError) as error:
            failure = error
    raise DataError(f"hub:{name}: cannot be found: {_first_line(failure)}") from failure


def _label_name(names: Sequence[str] | None, value: Any) -> Any:
    return names[value] if names is not None and isinstance(value, int) and value >= 0 else value


def _first_line(error: Exception | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
