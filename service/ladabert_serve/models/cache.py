"""Logits of inputs that were answered before, for as long as they fit: the least recently used go first."""

import hashlib
import os
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

ENTRY_BYTES = 400  # of an entry beside its logits; tests/service/test_cache.py measures it
LOGIT_BYTES = 8
KEY_BYTES = 16


class Known(NamedTuple):
    """What is remembered of one input: enough for any top_k and function, nothing of the text."""

    logits: Sequence[float]
    tokens: int
    truncated: bool


class AnswerCache:
    """The answers of one version of one model, in `limit_bytes` of memory; for one thread.

    Keys are hashes under a secret of this process, so that nobody who reads its memory can look a text up.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._secret = os.urandom(hashlib.blake2b.MAX_KEY_SIZE)
        self._answers: OrderedDict[bytes, Known] = OrderedDict()
        self.size_bytes = 0

    def key(self, *of: object) -> bytes:
        """Return the key of an input and of the options by which it becomes tokens, told apart by their `repr`."""
        return hashlib.blake2b(repr(of).encode(), digest_size=KEY_BYTES, key=self._secret).digest()

    def get(self, key: bytes) -> Known | None:
        """Return what is known under a key, which is then the last to go."""
        known = self._answers.get(key)
        if known is not None:
            self._answers.move_to_end(key)
        return known

    def put(self, key: bytes, known: Known) -> None:
        """Remember an answer, in the place of those that were not asked for the longest time."""
        if key in self._answers:
            return
        self._answers[key] = known._replace(logits=array("d", known.logits))
        self.size_bytes += _size_bytes(known)
        while self.size_bytes > self._limit_bytes:
            self.size_bytes -= _size_bytes(self._answers.popitem(last=False)[1])


def _size_bytes(known: Known) -> int:
    return ENTRY_BYTES + LOGIT_BYTES * len(known.logits)
