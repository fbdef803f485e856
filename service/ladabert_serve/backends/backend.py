"""What the core asks of whatever computes logits."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ladabert_serve.errors import ArtefactError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


class Backend(Protocol):
    """Computes logits; called from several threads at once."""

    @property
    def provider(self) -> str:
        """Where it computes: `cpu`, `cuda` or `openvino`."""

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        """Return logits (B, labels) for three arrays (B, T); raises InferenceError."""


def check_names(found_inputs: Sequence[str], found_outputs: Sequence[str], inputs: Sequence[str], output: str) -> None:
    """Raise ArtefactError unless a graph has the inputs and the output that the manifest says."""
    if sorted(found_inputs) != sorted(inputs):
        raise ArtefactError(f"the graph's inputs are {sorted(found_inputs)}, the manifest says {sorted(inputs)}")
    if output not in found_outputs:
        raise ArtefactError(f"the graph's outputs are {found_outputs}, the manifest says {output!r}")
