"""The order of the texts that wait in one flow.

The order is weighted fair queueing over tokens (Demers, Keshav and Shenker 1989). Virtual time advances by the
tokens that are computed, divided by the number of live requests; preparation counts as tokens, too. A text's tag is
its request's start in virtual time plus the request's tokens up to and including the text. The text with the least
tag goes first. So a short text does not wait behind long ones or behind another caller's list, and no text waits
forever. Tags are rounded, so that texts of similar length keep their order of arrival.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Owner = TypeVar("Owner")

TURN_TOKENS = 32  # tags are rounded down to a multiple of this, or of half the fair window where that is less


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one batch and of the queue."""

    max_batch_size: int  # texts
    max_batch_tokens: int  # padding included
    max_batch_padding: float  # share of the batch's tokens
    max_queue_requests: int
    max_queue_tokens: int
    max_queue_s: float  # that a request may expect to wait
    fair_window_tokens: int  # by which a batch may deviate from the fair order to find texts of its length


class QueuedText(Generic[Owner]):
    """One text of a request, its owner, in the queue."""

    __slots__ = ("follower", "index", "is_long", "is_of_long_list", "length", "owner", "turn", "waiting")

    def __init__(
        self, owner: Owner, index: int, length: int, is_long: bool, is_of_long_list: bool, turn: tuple[float, int]
    ) -> None:
        self.owner = owner
        self.index = index  # among its request's texts
        self.length = length
        self.is_long = is_long  # its request is longer than the fair window
        self.is_of_long_list = is_of_long_list  # and has several texts
        self.turn = turn  # its tag, rounded, and a number that keeps equal tags in order
        self.follower: QueuedText[Owner] | None = None  # the next of its request
        self.waiting = True


class FairQueue(Generic[Owner]):
    """The texts of one flow that wait; not thread-safe, the batcher's lock guards it."""

    def __init__(self, limits: BatchLimits) -> None:
        self.virtual_time = 0.0  # tokens for each live request
        self.ready_texts = 0
        self._limits = limits
        self._turn_tokens = min(TURN_TOKENS, limits.fair_window_tokens / 2)
        # Texts within the window, by tag and by length; and each request's first text beyond the window.
        self._ready: list[tuple[tuple[float, int], QueuedText[Owner]]] = []  # a heap
        self.by_length: dict[int, dict[QueuedText[Owner], None]] = {}
        self._beyond: list[tuple[tuple[float, int], QueuedText[Owner]]] = []  # a heap
        self._queued_texts = 0  # since the start

    def __bool__(self) -> bool:
        """Whether texts may wait; removed texts stay in the heaps for a while."""
        return bool(self.ready_texts or self._beyond)

    @property
    def first_tag(self) -> float:
        """The least tag of the texts that wait, rounded; infinite when none does."""
        for heap in (self._ready, self._beyond):
            while heap and not heap[0][1].waiting:
                heapq.heappop(heap)
        return min((heap[0][0][0] for heap in (self._ready, self._beyond) if heap), default=math.inf)

    def add(self, owner: Owner, virtual_start: float, lengths: Sequence[int]) -> Sequence[QueuedText[Owner]]:
        """Queue the texts of a request, with these lengths in tokens; return them in the order of their tags."""
        count = len(lengths)
        is_long = sum(lengths) > self._limits.fair_window_tokens
        is_long_list = is_long and count > 1
        # Texts of similar length share a batch; `index` says where a result belongs.
        order = sorted(range(count), key=lengths.__getitem__) if count > 1 else (0,)
        texts: list[QueuedText[Owner]] = []
        tag = virtual_start
        for index in order:
            tag += lengths[index]
            self._queued_texts += 1
            turn = (tag - tag % self._turn_tokens, self._queued_texts)
            text = QueuedText(owner, index, lengths[index], is_long, is_long_list, turn)
            if texts:
                texts[-1].follower = text
            texts.append(text)
        heapq.heappush(self._beyond, (texts[0].turn, texts[0]))
        return texts

    def remove(self, text: QueuedText[Owner]) -> None:
        """Take a text out of the queue; the heaps drop it when it reaches their top."""
        text.waiting = False
        same_length = self.by_length.get(text.length)
        if same_length is not None and text in same_length:
            self.ready_texts -= 1
            del same_length[text]
            if not same_length:
                del self.by_length[text.length]
        if not self.ready_texts:
            self._ready.clear()

    def bring_within_window(self, window_tokens: int) -> QueuedText[Owner] | None:
        """Make the texts within the window ready and return the one with the least tag."""
        first_tag = self.first_tag
        if first_tag == math.inf:
            return None
        horizon = first_tag + window_tokens
        while self._beyond and self._beyond[0][0][0] <= horizon:
            entry = heapq.heappop(self._beyond)
            text = entry[1]
            if not text.waiting:
                continue
            heapq.heappush(self._ready, entry)
            self.by_length.setdefault(text.length, {})[text] = None
            self.ready_texts += 1
            if text.follower is not None:
                heapq.heappush(self._beyond, (text.follower.turn, text.follower))
        return self._ready[0][1]
