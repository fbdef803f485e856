"""Claims about the batches of the in-process limit."""

from __future__ import annotations

from benchmarks.serving.limit import sorted_batches
from service.tokenizer import Tokens


def test_batches_are_sorted_as_a_whole_and_the_longest_come_first() -> None:
    tokens = [Tokens([0] * length, [0] * length, False) for length in (3, 9, 5, 4, 7)]
    batches = [[len(entry.ids) for entry in batch] for batch in sorted_batches(tokens, 2)]
    assert batches == [[9, 7], [5, 4], [3]]
