"""What each graph answers to fixed inputs where it is exported, so that a reader can see whether it does elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compression.batches import Batch
from compression.onnx_session import OnnxSession

ROWS, TOKENS = 4, 12
DECIMALS = 4


def self_test(sessions: Mapping[str, OnnxSession], vocabulary: int, max_length: int) -> dict[str, Any]:
    """The manifest's ``self_test``: random tokens, the same for each vocabulary, and each file's logits.

    Returns:
        ``input_ids`` (4, T) without padding, T at most 12, and ``logits`` by file, each (4, classes).
    """
    shape = (ROWS, min(TOKENS, max_length))
    input_ids = torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(0))
    batch = Batch(input_ids, torch.ones_like(input_ids), torch.zeros_like(input_ids), input_ids[:, 0])
    logits = {file: session.logits(batch).astype(float).round(DECIMALS).tolist() for file, session in sessions.items()}
    return {"input_ids": input_ids.tolist(), "logits": logits}
