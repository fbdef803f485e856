"""Holds rows out, also those that are part of no other row.

SST-2's phrases are parts of its sentences: what is learnt from a sentence tells the labels of its phrases.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ladabert_compress.data.batches import EncodedTexts


def hold_out(count: int, rows: int, seed: int) -> tuple[list[int], list[int]]:
    """All of ``count`` rows but some drawn by the seed, and those: ``rows`` of them, but at most a tenth; in order."""
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = min(rows, count // 10)
    return sorted(order[held_out:]), sorted(order[:held_out])


def hold_out_without_overlaps(data: EncodedTexts, rows: int, seed: int) -> tuple[list[int], list[int]]:
    """Holds out rows that overlap with no row that is kept.

    ``rows`` rows, at most a tenth, are drawn by the seed from those that are part of no other row. The remaining rows
    are kept, except those that are part of a held-out row.

    Returns:
        The kept rows, and the held-out rows, in order.
    """
    parts = rows_within(data, range(len(data)), range(len(data)))
    whole = [row for row in range(len(data)) if row not in parts]
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = torch.randperm(len(whole), generator=generator).tolist()
    held_out = sorted(whole[index] for index in order[: min(rows, len(data) // 10)])
    rest = sorted(set(range(len(data))) - set(held_out))
    known = rows_within(data, rest, held_out)
    return [row for row in rest if row not in known], held_out


def rows_within(data: EncodedTexts, rows: Sequence[int], others: Sequence[int]) -> set[int]:
    """Those of ``rows`` whose tokens are a contiguous part of another row among ``others``, or all of it."""
    # One character for each token, without the special tokens around the text: Python finds parts of strings fast.
    keys = [ids[1:-1].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass") for ids in data.rows]
    readers: dict[str, list[int]] = {}
    for other in others:
        for token in set(keys[other]):
            readers.setdefault(token, []).append(other)
    return {
        row
        for row in rows
        if keys[row]
        and any(
            other != row and keys[row] in keys[other]
            for other in min((readers.get(token, []) for token in set(keys[row])), key=len)
        )
    }
