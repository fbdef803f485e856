"""Whose turn it is, and which texts of near-equal length go along.

Order is weighted fair queueing over tokens (Demers, Keshav and Shenker 1989): virtual time advances by the
tokens computed for each request that is being served, a text's tag is the virtual time at its request's admission
plus the tokens of its request up to and with itself, and the least tag goes first. So a short text does not wait
behind long ones, nor one text behind another caller's list, and nothing waits for ever. Tags are rounded, so that
texts that hardly differ go in the order in which they came.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Owner = TypeVar("Owner")

TURN_TOKENS = 32  # tags are rounded down to a multiple of this, or of half the fair window where that is less
YIELD_S = 1.0  # in which the next request is expected that is no long list: closed-loop callers think for less


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold and what may wait."""

    max_batch_size: int  # texts
    max_batch_tokens: int  # padding included
    max_batch_padding: float  # share of the batch's tokens
    max_queue_requests: int
    max_queue_tokens: int
    max_queue_s: float  # that a request may expect to wait
    fair_window_tokens: int  # how far a batch may run ahead of the fair order to find texts of its length


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
        self.turn = turn  # its tag, rounded, and a number by which equal ones stay in order
        self.follower: QueuedText[Owner] | None = None  # the next of its request
        self.waiting = True


class FairQueue(Generic[Owner]):
    """The texts that wait; not safe for threads: the batcher's lock guards it."""

    def __init__(self, limits: BatchLimits) -> None:
        self.virtual_time = 0.0  # tokens computed for each live request
        self.ready_texts = 0
        self._limits = limits
        self._turn_tokens = min(TURN_TOKENS, limits.fair_window_tokens / 2)
        # Those within the window by tag and by length, and of each longer request the first beyond.
        self._ready: list[tuple[tuple[float, int], QueuedText[Owner]]] = []  # a heap
        self._by_length: dict[int, dict[QueuedText[Owner], None]] = {}
        self._beyond: list[tuple[tuple[float, int], QueuedText[Owner]]] = []  # a heap
        self._queued_texts = 0  # since the start
        self._other_request_at = -math.inf  # when the last request that is no long list was queued

    def __bool__(self) -> bool:
        """Whether there may be texts that wait: the heaps forget those that were removed late."""
        return bool(self.ready_texts or self._beyond)

    @property
    def first_tag(self) -> float:
        """The least tag of the texts that wait, rounded; infinite when none does."""
        for heap in (self._ready, self._beyond):
            while heap and not heap[0][1].waiting:
                heapq.heappop(heap)
        return min((heap[0][0][0] for heap in (self._ready, self._beyond) if heap), default=math.inf)

    def add(
        self, owner: Owner, virtual_start: float, lengths: Sequence[int], now: float
    ) -> Sequence[QueuedText[Owner]]:
        """Queue the texts of a request, of these lengths in tokens; return them in the order in which they go."""
        count = len(lengths)
        is_long = sum(lengths) > self._limits.fair_window_tokens
        is_long_list = is_long and count > 1
        if not is_long_list:
            self._other_request_at = now
        # Neighbours in length share a batch; results have places of their own.
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
        """Take a text out of the queue; the heaps forget it when it comes to their top, or when nothing waits."""
        text.waiting = False
        same_length = self._by_length.get(text.length)
        if same_length is not None and text in same_length:
            self.ready_texts -= 1
            del same_length[text]
            if not same_length:
                del self._by_length[text.length]
        if not self.ready_texts:
            self._ready.clear()

    def pick(self, live_requests: int, free_runners: int, long_is_run: bool, now: float) -> list[QueuedText[Owner]]:
        """Choose the text whose turn it is and those nearest to it in length, as far as the limits allow.

        Nothing interrupts a run. So while other requests come, the texts of long lists run in batches of no more
        tokens than the window, lest others wait for long, and apart from them, lest they make their runs longer. And
        while a long request's text is run (`long_is_run`), a short one within the window goes before the next of
        those, lest every runner be taken.
        """
        first = self._bring_within_window(live_requests)
        if first is None:
            return []
        if long_is_run and first.is_long:
            short = (text for texts in self._by_length.values() for text in texts if not text.is_long)
            first = min(short, key=lambda text: text.turn, default=first)
        limits = self._limits
        max_tokens = limits.max_batch_tokens
        without_lists = False
        if now < self._other_request_at + YIELD_S:
            without_lists = not first.is_of_long_list
            if not without_lists:
                max_tokens = min(max_tokens, limits.fair_window_tokens)
        # Runners that are free at the same moment share what waits, or one would work and the rest look on.
        most = min(limits.max_batch_size, math.ceil(self.ready_texts / max(1, free_runners)))
        picked = [first]
        if most == 1:
            return picked
        tokens = longest = first.length
        nearest_first = first.length - 0.25  # of two lengths as near, the shorter one
        for length in sorted(self._by_length, key=lambda other: abs(other - nearest_first)):
            longest_then = max(longest, length)
            for text in self._by_length[length]:
                if text is first or (without_lists and text.is_of_long_list):
                    continue
                padded = longest_then * (len(picked) + 1)
                padding = padded - tokens - length
                if padded > max_tokens or padding > limits.max_batch_padding * padded:
                    break
                picked.append(text)
                if len(picked) == most:
                    return picked
                tokens += length
                longest = longest_then
        return picked

    def _bring_within_window(self, live_requests: int) -> QueuedText[Owner] | None:
        """Make the texts ready that are within the window from the least tag on; return the text that has it."""
        first_tag = self.first_tag
        if first_tag == math.inf:
            return None
        # A request that is alone holds nobody up.
        window = self._limits.fair_window_tokens if live_requests > 1 else self._limits.max_batch_tokens
        horizon = first_tag + window
        while self._beyond and self._beyond[0][0][0] <= horizon:
            entry = heapq.heappop(self._beyond)
            text = entry[1]
            if not text.waiting:
                continue
            heapq.heappush(self._ready, entry)
            self._by_length.setdefault(text.length, {})[text] = None
            self.ready_texts += 1
            if text.follower is not None:
                heapq.heappush(self._beyond, (text.follower.turn, text.follower))
        return self._ready[0][1]
