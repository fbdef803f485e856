"""Logits of inputs that were answered before, for as long as they fit: the least recently used go first."""

import hashlib
import os
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

ENTRY_BYTES = 220  # of an entry beside what is packed; tests/service/test_cache.py measures it
KEY_BYTES = 16


class Known(NamedTuple):
    """What is remembered of one input: enough for any top_k and function, nothing of the text."""

    logits: Sequence[float]
    tokens: int
    truncated: bool

    def pack(self) -> bytes:
        """Return it as float64 numbers: bytes, unlike tuples, cost the garbage collector nothing."""
        return array("d", [self.tokens, self.truncated, *self.logits]).tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> "Known":
        """Return what was packed, to the last digit."""
        tokens, truncated, *logits = array("d", data)
        return cls(logits, int(tokens), bool(truncated))


class AnswerCache:
    """The answers of one version of one model, in `limit_bytes` of memory; for one thread.

    Keys are hashes under a secret of this process, so that nobody who reads its memory can look a text up.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._secret = os.urandom(hashlib.blake2b.MAX_KEY_SIZE)
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()
        self.size_bytes = 0

    def key(self, *of: object) -> bytes:
        """Return the key of an input and of the options by which it becomes tokens, told apart by their `repr`."""
        return hashlib.blake2b(repr(of).encode(), digest_size=KEY_BYTES, key=self._secret).digest()

    def get(self, key: bytes) -> Known | None:
        """Return what is known under a key, which is then the last to go."""
        packed = self._answers.get(key)
        if packed is None:
            return None
        self._answers.move_to_end(key)
        return Known.unpack(packed)

    def put(self, key: bytes, known: Known) -> None:
        """Remember an answer, in the place of those that were not asked for the longest time."""
        if key in self._answers:
            return
        packed = self._answers[key] = known.pack()
        self.size_bytes += ENTRY_BYTES + len(packed)
        while self.size_bytes > self._limit_bytes:
            self.size_bytes -= ENTRY_BYTES + len(self._answers.popitem(last=False)[1])
