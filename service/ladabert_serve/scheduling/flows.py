"""Shares the runners between flows, and chooses the texts of near-equal length for a batch.

A flow is the requests of one API key; without keys, all requests are one flow. The flow that was served least has its
turn (start-time fair queueing over tokens: Goyal, Vin and Cheng 1996), and its fair queue says which of its texts goes
first. The batch is filled from that flow, then from the others, whose account pays for it. So a key gets its share
whatever number of requests another one sends, and batches are as full as without keys.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ladabert_serve.scheduling.fair_queue import BatchLimits, FairQueue, QueuedText

Owner = TypeVar("Owner")

YIELD_S = 1.0  # after a request that is no long list, another one is expected: callers in a closed loop pause for less


@dataclass(slots=True)
class Waiting:
    """What waits for a runner."""

    requests: int = 0  # of which at least one text waits
    tokens: int = 0  # estimated where the texts are not prepared yet
    size_bytes: int = 0  # to prepare
    contended_tokens: int = 0  # of these, how many other requests may have to wait for
    contended_bytes: int = 0


class Flow(FairQueue[Owner]):
    """The requests that together get one share of the runners."""

    def __init__(self, name: Hashable, limits: BatchLimits) -> None:
        super().__init__(limits)
        self.name = name
        self.served = 0.0  # tokens that it got; a flow that had nothing to do does not fall behind those that had
        self.live_requests = 0
        self.waiting = Waiting()

    def charge(self, tokens: float) -> None:
        """Count work that was done for it."""
        self.served += tokens
        self.virtual_time += tokens / self.live_requests


class Place(NamedTuple):
    """Where a request stands that came at some moment, for when its texts are known later."""

    flow: Flow[Any] | None  # None: there was none of its name
    virtual_time: float

    def virtual_start(self, flow: Flow[Any]) -> float:
        """Return its place in the flow that has its name now: at the begin of one that came into being since."""
        return self.virtual_time if flow is self.flow else 0.0


class Flows(Generic[Owner]):
    """Every flow with a live request; not thread-safe, the batcher's lock guards it."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._flows: dict[Hashable, Flow[Owner]] = {}
        self._level = 0.0  # what the flows whose texts ran last had been served before
        self._other_request_at = -math.inf  # when the last request was queued that is no long list

    def __len__(self) -> int:
        return len(self._flows)

    def __bool__(self) -> bool:
        """Whether texts may wait; removed texts stay in the heaps for a while."""
        return any(self._flows.values())

    def get(self, name: Hashable) -> Flow[Owner] | None:
        """Return the flow of this name if it has a live request."""
        return self._flows.get(name)

    def place(self, name: Hashable) -> Place:
        """Return where a request of this flow would stand that came now."""
        flow = self._flows.get(name)
        return Place(flow, 0.0 if flow is None else flow.virtual_time)

    def enter(self, name: Hashable) -> Flow[Owner]:
        """Return the flow of this name, for one more request."""
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = Flow(name, self._limits)
        if not flow.waiting.requests:
            flow.served = max(flow.served, self._level)
        flow.live_requests += 1
        return flow

    def leave(self, flow: Flow[Owner]) -> None:
        """Count one request less."""
        flow.live_requests -= 1
        if not flow.live_requests:
            del self._flows[flow.name]

    def add(
        self, flow: Flow[Owner], owner: Owner, virtual_start: float, lengths: Sequence[int], now: float
    ) -> Sequence[QueuedText[Owner]]:
        """Queue the texts of a request, with these lengths in tokens; return them in the order in which they go."""
        texts = flow.add(owner, virtual_start, lengths)
        if not texts[0].is_of_long_list:
            self._other_request_at = now
        return texts

    def is_due(self, flow: Flow[Owner], virtual_start: float) -> bool:
        """Return whether a request whose texts are not queued yet would go before all that wait."""
        first = min((other for other in self._flows.values() if other), key=_served, default=flow)
        return virtual_start <= flow.first_tag if first is flow else flow.served < first.served

    def charge(self, tokens: Mapping[Flow[Owner], int]) -> None:
        """Count the tokens of a batch that starts."""
        self._level = max(self._level, *map(_served, tokens))
        for flow, number in tokens.items():
            flow.charge(number)

    def pick(self, live_requests: int, free_runners: int, long_is_run: bool, now: float) -> list[QueuedText[Owner]]:
        """Choose the text whose turn it is and the texts nearest to it in length, within the limits.

        A run cannot be interrupted. While other requests come, the texts of long lists therefore run in batches of at
        most the window's tokens, and share no batch with other requests. While a text of a long request runs
        (`long_is_run`), a short text within the window goes before the next long one, so that a runner stays free.
        """
        limits = self._limits
        # A single request delays no other.
        window_tokens = limits.fair_window_tokens if live_requests > 1 else limits.max_batch_tokens
        waiting = sorted((flow for flow in self._flows.values() if flow), key=_served)
        firsts = [flow.bring_within_window(window_tokens) for flow in waiting]
        first = next((text for text in firsts if text is not None), None)
        if first is None:
            return []
        if long_is_run and first.is_long:
            first = next(filter(None, map(_first_short, waiting)), first)
        max_tokens = limits.max_batch_tokens
        without_lists = False
        if now < self._other_request_at + YIELD_S:
            without_lists = not first.is_of_long_list
            if not without_lists:
                max_tokens = min(max_tokens, limits.fair_window_tokens)
        # Runners that are free at the same time share the texts.
        ready_texts = sum(flow.ready_texts for flow in waiting)
        most = min(limits.max_batch_size, math.ceil(ready_texts / max(1, free_runners)))
        picked = [first]
        if most == 1:
            return picked
        tokens = longest = first.length
        nearest_first = first.length - 0.25  # of two lengths that are equally near, the shorter one
        for flow in waiting:
            for length in sorted(flow.by_length, key=lambda other: abs(other - nearest_first)):
                longest_then = max(longest, length)
                for text in flow.by_length[length]:
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


def _served(flow: Flow[Owner]) -> float:
    return flow.served


def _first_short(flow: Flow[Owner]) -> QueuedText[Owner] | None:
    """Return the text of a flow whose turn it is among those within the window that belong to no long request."""
    short = (text for texts in flow.by_length.values() for text in texts if not text.is_long)
    return min(short, key=lambda text: text.turn, default=None)
