"""One served model: tokenizer, batcher, runners and backend, and the way of a request through them."""

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.batcher import Batcher, BatchLimits, Ticket
from service.errors import FieldError, InvalidRequestError, ModelFailedError, RequestError
from service.inference import Inference, Logits
from service.metrics import ModelMetrics
from service.runner import RunnerPool
from service.scores import FunctionToApply, LabelScore, apply_function, default_function, rank
from service.tokenizer import TextInput, Tokens, TruncationDirection

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What a caller asks of a model, whatever the route."""

    inputs: Sequence[TextInput]
    timeout_s: float
    top_k: int | None = None
    function_to_apply: FunctionToApply | None = None
    truncate: bool = True
    truncation_direction: TruncationDirection = "right"
    paths: Callable[[int], str] = "inputs[{}]".format  # how the route names input i in an error


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one input; `scores` from high to low."""

    scores: list[LabelScore]
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """Predictions in the order of the inputs, and the seconds that each step took."""

    predictions: list[Prediction]
    tokenize_s: float
    queue_s: float
    inference_s: float


class Model:
    """Answers questions with one artefact; started and stopped by the registry."""

    def __init__(
        self,
        inference: Inference,
        graph_file: str,
        limits: BatchLimits,
        runners: int,
        metrics: ModelMetrics,
        tokenizing: ThreadPoolExecutor,
    ) -> None:
        artefact = inference.artefact
        self.artefact = artefact
        self.graph_file = graph_file
        self.provider = inference.backend.provider
        self.runners = runners
        self.metrics = metrics
        self.tokenizer = inference.tokenizer
        self.batcher: Batcher[Tokens, Logits] = Batcher(limits, metrics)
        self._tokenizing = tokenizing
        self._pool = RunnerPool(
            name=artefact.name,
            batcher=self.batcher,
            run=inference.run,
            probe=inference.warm_up,
            failure=lambda: ModelFailedError(artefact.name),
            report=lambda healthy: metrics.ready.set(healthy),
            count=runners,
        )
        self._draining = False

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self.artefact.name

    @property
    def precision(self) -> str:
        """`fp32` or `int8`."""
        return self.artefact.precision_of(self.graph_file)

    @property
    def state(self) -> str:
        """`ready`, `draining` or `failed`."""
        if self._draining:
            return "draining"
        return "ready" if self._pool.healthy else "failed"

    def start(self) -> None:
        """Start the runners."""
        self._pool.start()

    def drain(self) -> None:
        """Admit nothing from now on."""
        self._draining = True
        self.metrics.ready.set(0)
        self.batcher.drain()

    def abort(self) -> None:
        """Answer what is left with DrainingError."""
        self.batcher.abort()

    def stop(self) -> None:
        """Answer what is left with DrainingError and end the runners."""
        self.drain()
        self._pool.stop()

    async def classify(self, question: Question, watch: Callable[[Callable[[], None]], None]) -> Reply:
        """Answer a question; raises RequestError.

        `watch` is called with a function to call when the caller hangs up.
        """
        loop = asyncio.get_running_loop()
        clock = self.batcher.clock
        admitted_at = clock()
        self._check_task(question)

        # Admit, by an upper bound of the tokens, before any work is done.
        settled = asyncio.Event()
        tokens = sum(self.tokenizer.upper_bound(value) for value in question.inputs)
        ticket: Ticket[Tokens, Logits] = self.batcher.admit(
            tokens, admitted_at + question.timeout_s, functools.partial(_set_from_thread, loop, settled)
        )
        alarm = loop.call_later(question.timeout_s, self.batcher.expire, ticket)
        try:
            # Tokenise in a thread, which queues the result; a runner batches, runs and settles it.
            tokenizing = self._tokenizing.submit(self._tokenize_and_queue, ticket, question)
            watch(functools.partial(self.batcher.cancel, ticket))
            await settled.wait()
        finally:
            alarm.cancel()
            if not ticket.settled:  # this task itself was cancelled
                self.batcher.cancel(ticket)
        self._observe(ticket, admitted_at)
        if ticket.error is not None:
            raise ticket.error
        encoded = tokenizing.result()
        assert ticket.queued_at is not None
        assert ticket.started_at is not None
        assert ticket.settled_at is not None
        return Reply(
            self._predict(question, encoded, ticket.results),
            tokenize_s=ticket.queued_at - admitted_at,
            queue_s=ticket.started_at - ticket.queued_at,
            inference_s=ticket.settled_at - ticket.started_at,
        )

    def _check_task(self, question: Question) -> None:
        """Raise InvalidRequestError when a text stands where the model reads a pair, or the other way round."""
        wants_pair = self.artefact.task == "pair"
        errors = []
        for index, value in enumerate(question.inputs):
            if wants_pair and value.text_pair is None:
                message = f"model {self.name!r} compares two texts: send {{text, text_pair}}"
                errors.append(FieldError(question.paths(index), message))
            elif not wants_pair and value.text_pair is not None:
                message = f"model {self.name!r} reads one text: leave text_pair out"
                errors.append(FieldError(question.paths(index), message))
        if errors:
            raise InvalidRequestError(errors)

    def _tokenize_and_queue(self, ticket: Ticket[Tokens, Logits], question: Question) -> list[Tokens]:
        """Tokenise every input and queue them; runs in a thread, and fails the ticket instead of raising."""
        encoded: list[Tokens] = []
        try:
            for value in question.inputs:
                if ticket.settled:  # the caller left, or the deadline passed
                    return encoded
                encoded.append(self.tokenizer.tokenize(value, question.truncation_direction))
            if not question.truncate:
                self._refuse_truncated(question, encoded)
            self.batcher.put(ticket, encoded, [len(tokens.ids) for tokens in encoded])
        except RequestError as error:
            self.batcher.fail(ticket, error)
        except BaseException:  # a panic in the library is no Exception
            logger.exception("tokenising failed on model %s", self.name)
            self.batcher.fail(ticket, ModelFailedError(self.name))
        return encoded

    def _refuse_truncated(self, question: Question, encoded: Sequence[Tokens]) -> None:
        limit = self.artefact.max_length
        errors = [
            FieldError(
                question.paths(index),
                f"has {tokens.full_length} tokens, model {self.name!r} reads at most {limit}; "
                "shorten it or allow truncation",
            )
            for index, tokens in enumerate(encoded)
            if tokens.truncated
        ]
        if errors:
            raise InvalidRequestError(errors)

    def _predict(self, question: Question, encoded: Sequence[Tokens], logits: Sequence[Logits]) -> list[Prediction]:
        artefact = self.artefact
        function = question.function_to_apply or default_function(artefact.problem_type)
        predictions = []
        for tokens, row in zip(encoded, logits, strict=True):
            scores = rank(artefact.labels, apply_function(row, function, artefact.temperature), question.top_k)
            self.metrics.predictions[scores[0].label].inc()
            self.metrics.prediction_score.observe(scores[0].score)
            self.metrics.input_tokens.observe(len(tokens.ids))
            predictions.append(Prediction(scores, len(tokens.ids), tokens.truncated))
        return predictions

    def _observe(self, ticket: Ticket[Tokens, Logits], admitted_at: float) -> None:
        """Record the steps that the request went through."""
        if ticket.queued_at is None:
            return
        self.metrics.tokenize_duration.observe(ticket.queued_at - admitted_at)
        if ticket.started_at is None:
            return
        self.metrics.queue_duration.observe(ticket.started_at - ticket.queued_at)
        if ticket.error is None and ticket.settled_at is not None:
            self.metrics.inference_duration.observe(ticket.settled_at - ticket.started_at)


def _set_from_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        logger.debug("the event loop closed before this answer")
