"""What the core asks of whatever computes logits."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


class Backend(Protocol):
    """Computes logits; called from several threads at once."""

    @property
    def provider(self) -> str:
        """Where it computes: `cpu`, `cuda` or `openvino`."""

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        """Return logits (B, labels) for three arrays (B, T); raises InferenceError."""
