"""Scores tables that another program reads and writes, such as Ray Data on a cluster."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from ladabert_serve.errors import StartError
from ladabert_serve.scoring.scorer import Columns, Scorer
from ladabert_serve.settings import Settings


class TableScorer:
    """Adds each model's label and score to pyarrow tables; the models are loaded once, when it is made.

    `settings` are the server's, by name, and win over the environment. There is one runner unless they say more,
    since a cluster has one such object for each core. Raises StartError.
    """

    def __init__(
        self,
        models: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        text_column: str = "text",
        text_pair_column: str = "text_pair",
        prefix: str = "",
    ) -> None:
        columns = Columns(text_column, text_pair_column, prefix)
        self._scorer = Scorer(models, Settings(**{"runners": 1, **(settings or {})}), columns)

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Return the table with its new columns, the rows in their order; raises StartError."""
        scorer = self._scorer
        missing = [name for name in scorer.read if name not in table.column_names]
        if missing:
            raise StartError(
                f"the table has no column {missing[0]!r}, only {', '.join(table.column_names)}; name it with "
                "text_column or text_pair_column"
            )
        taken = [name for pair in scorer.added for name in pair if name in table.column_names]
        if taken:
            raise StartError(f"the table has a column {taken[0]!r} already; choose another name with prefix")
        texts = [scorer.text_of(row) for row in table.select(scorer.read).to_pylist()]
        for (label, score), answers in scorer.answers(texts):
            table = table.append_column(label, pyarrow.array([each for each, _ in answers], pyarrow.string()))
            table = table.append_column(score, pyarrow.array([each for _, each in answers], pyarrow.float64()))
        return table
