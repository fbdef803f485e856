"""One admitted request, and the batch in which its texts run together with those of others."""

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

from ladabert_serve.scheduling.fair_queue import QueuedText
from ladabert_serve.scheduling.flows import Flow

Request = TypeVar("Request")
Payload = TypeVar("Payload")
Result = TypeVar("Result")

Preparation = Generator[int, None, Sequence[tuple[Payload, int]]]


class Ticket(Generic[Request, Payload, Result]):
    """One admitted request, settled exactly once.

    Once it is settled, `results` holds one result per text in their order, or `error` says why there is none.
    `payloads` are its prepared texts. Times are seconds on the batcher's clock; `waiter` belongs to the caller.
    """

    error: BaseException | None = None
    settled = False
    queued_at = math.nan  # its texts were prepared
    started_at = math.nan  # a runner took the first of them
    settled_at = math.nan
    _preparation: "Preparation[Payload] | None" = None
    _texts: "Texts[Request, Payload, Result]" = ()  # in the order in which they go
    _waiting_tokens = 0  # an estimate until the texts are prepared
    _waiting_bytes = 0  # to prepare, at most
    _contended_tokens = 0  # of these, how many other requests may have to wait for
    _contended_bytes = 0
    _unstarted = 1  # texts that no runner took; until the texts are prepared, not zero
    _unanswered = 0

    def __init__(
        self,
        request: Request,
        deadline: float,
        waiter: Any,
        now: float,
        flow: "Flow[Ticket[Request, Payload, Result]]",
    ) -> None:
        self.request = request
        self.deadline = deadline
        self.waiter = waiter
        self.admitted_at = now
        self._flow = flow
        self._virtual_start = flow.virtual_time
        self.payloads: Sequence[Payload] = ()
        self.results: list[Result] = []
        self._prepared: Sequence[tuple[Payload, int]] = ()

    def steps(self) -> list[tuple[str, float, float]]:
        """Return name, begin and end of each completed step: tokenize, queue, inference."""
        times = (self.admitted_at, self.queued_at, self.started_at, self.settled_at if self.error is None else math.nan)
        return [
            (name, begin, end)
            for name, begin, end in zip(("tokenize", "queue", "inference"), times, times[1:], strict=False)
            if not math.isnan(end)
        ]


Texts = Sequence[QueuedText[Ticket[Request, Payload, Result]]]


class Batch(Generic[Request, Payload, Result]):
    """Texts that run together; answered or failed once, by the runner that took it."""

    __slots__ = ("_answered", "answered", "is_long", "longest", "payloads", "started_at", "texts", "tokens")

    def __init__(
        self, texts: Texts[Request, Payload, Result], started_at: float, answered: "Answered[Request, Payload, Result]"
    ) -> None:
        self.texts = texts
        self._answered = answered
        self.started_at = started_at
        self.payloads = [text.owner.payloads[text.index] for text in texts]
        lengths = [text.length for text in texts]
        self.longest = max(lengths)
        self.tokens = sum(lengths)
        self.is_long = texts[0].is_long
        self.answered = False

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.longest * len(self.texts)

    def answer(self, results: Sequence[Result | Exception], timed: bool = True) -> None:
        """Give each text its result, or the error for its caller, in the order of `payloads`.

        `timed` says whether the time since `started_at` tells how fast the model is.
        """
        if len(results) != len(self.texts):
            raise ValueError(f"{len(results)} results for a batch of {len(self.texts)}")
        if self.answered:
            raise RuntimeError("this batch was answered before")
        self.answered = True
        self._answered(self, results, timed)


Answered = Callable[[Batch[Request, Payload, Result], Sequence[Result | Exception], bool], None]
