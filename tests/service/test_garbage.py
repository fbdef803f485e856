"""Claims about what a request leaves behind: nothing that only the garbage collector can free.

A collection holds every request up, so that cycles would be latency.
"""

import gc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import serving

pytestmark = pytest.mark.slow

REQUESTS = 50


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"inputs": "a good film"}, 200),
        ({"inputs": ["a", "good", "film"]}, 200),
        ({"inputs": []}, 422),
        ({"inputs": "a good film", "model": "nope"}, 404),
        ({"inputs": "a good film", "truncate": False}, 200),
        ({"inputs": "a " * 500, "truncate": False}, 422),
        ({"inputs": ["a"] * 4}, 413),
    ],
)
def test_a_request_leaves_no_cycles(models: Path, body: Any, status: int) -> None:
    with serving(models, max_inputs=3) as server:
        assert server.classify(body).status_code == status
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(REQUESTS):
                server.classify(body)
            gc.collect()
            ours = Counter(type(left) for left in gc.garbage if type(left).__module__.startswith("ladabert_serve"))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not ours
