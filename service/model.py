"""One served model: tokenizer, batcher, runners and backend, and the way of a request through them."""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict

from service.batcher import TEXTS_AT_A_TIME, Batcher, Ticket
from service.errors import FieldError, InvalidRequestError, ModelFailedError, RequestError
from service.fair_queue import BatchLimits
from service.inference import Inference, Logits
from service.metrics import ModelMetrics
from service.runner import RunnerPool
from service.scores import FunctionToApply, apply_function, default_function, rank
from service.tokenizer import TextInput, Tokens, TruncationDirection

logger = logging.getLogger(__name__)


class Question(NamedTuple):
    """What a caller asks of a model, whatever the route."""

    inputs: Sequence[TextInput]
    top_k: int | None = None
    function_to_apply: FunctionToApply | None = None
    truncate: bool = True
    truncation_direction: TruncationDirection = "right"
    paths: Callable[[int], str] = "inputs[{}]".format  # how the route names input i in an error


class Prediction(TypedDict):
    """The answer for one input: the best label and its score, and all that were asked for from high to low."""

    label: str
    score: float
    scores: list[dict[str, Any]]  # label and score
    tokens: int
    truncated: bool


ModelTicket = Ticket[Question, Tokens, Logits]
ModelBatcher = Batcher[Question, Tokens, Logits]


class Caller(Protocol):
    """Who asked, and may leave before the answer."""

    deadline: float  # on the monotonic clock, in seconds

    def admitted(self, ticket: ModelTicket, batcher: ModelBatcher) -> None:
        """Know the ticket, whose times are those of the steps; `cancel` it when the caller leaves, or `expire` it."""


class Model:
    """Answers questions with one artefact; started and stopped by the registry."""

    def __init__(
        self,
        inference: Inference,
        graph_file: str,
        limits: BatchLimits,
        runners: int,
        max_run_s: float,
        metrics: ModelMetrics,
    ) -> None:
        artefact = inference.artefact
        self.artefact = artefact
        self.graph_file = graph_file
        self.provider = inference.backend.provider
        self.runners = runners
        self.metrics = metrics
        self.tokenizer = inference.tokenizer
        self.batcher: ModelBatcher = Batcher(limits, self._tokenize, self._deliver, metrics)
        self._reads_pairs = artefact.task == "pair"
        self._default_function = default_function(artefact.problem_type)
        self._pool = RunnerPool(
            name=artefact.name,
            batcher=self.batcher,
            run=inference.run,
            probe=inference.warm_up,
            failure=functools.partial(ModelFailedError, artefact.name),
            report=lambda healthy: metrics.ready.set(healthy),
            count=runners,
            max_run_s=max_run_s,
        )
        self._draining = False
        self._loop: asyncio.AbstractEventLoop | None = None  # where the callers wait

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
        """Start the runners; called on the event loop that will ask."""
        self._loop = asyncio.get_running_loop()
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

    async def classify(self, question: Question, caller: Caller) -> list[Prediction]:
        """Return the predictions in the order of the inputs; raises RequestError."""
        # Admit, by an upper bound of the tokens, before any work is done; a runner tokenises, batches and runs it.
        tokens = 0
        for value in question.inputs:
            if (value.text_pair is None) is self._reads_pairs:
                raise self._wrong_task(question)
            tokens += self.tokenizer.upper_bound(value)
        settled = asyncio.get_running_loop().create_future()
        ticket = self.batcher.admit(question, tokens, caller.deadline, settled)
        try:
            caller.admitted(ticket, self.batcher)
            await settled
        finally:
            if not ticket.settled:  # this task itself was cancelled
                self.batcher.cancel(ticket)
        if ticket.error is not None:
            for name, begin, end in ticket.steps():
                self.metrics.steps[name].observe(end - begin)
            raise ticket.error
        metrics = self.metrics
        metrics.tokenize.observe(ticket.queued_at - ticket.admitted_at)
        metrics.queue.observe(ticket.started_at - ticket.queued_at)
        metrics.inference.observe(ticket.settled_at - ticket.started_at)
        predictions: list[Prediction] = []
        for encoded, logits in zip(ticket.payloads, ticket.results, strict=True):
            predictions.append(self._predict(question, encoded, logits))
            if len(predictions) % TEXTS_AT_A_TIME == 0:
                await asyncio.sleep(0)  # let others be answered in between
        return predictions

    def _deliver(self, tickets: Sequence[ModelTicket]) -> None:
        """Wake the callers of settled tickets, all of a batch at once; called from any thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_wake, tickets)
        except RuntimeError:
            logger.debug("the event loop closed before this answer")

    def _wrong_task(self, question: Question) -> InvalidRequestError:
        """Return what to say when a text stands where the model reads a pair, or the other way round."""
        pairs = self._reads_pairs
        if pairs:
            message = f"model {self.name!r} compares two texts: send {{text, text_pair}}"
        else:
            message = f"model {self.name!r} reads one text: leave text_pair out"
        wrong = [index for index, value in enumerate(question.inputs) if (value.text_pair is None) is pairs]
        return InvalidRequestError([FieldError(question.paths(index), message) for index in wrong])

    def _tokenize(self, question: Question) -> Iterator[tuple[Tokens, int]]:
        """Tokenise one input after the other; called by a runner. Raises RequestError."""
        encoded: list[Tokens] = []
        try:
            for value in question.inputs:
                tokens = self.tokenizer.tokenize(value, question.truncation_direction)
                encoded.append(tokens)
                yield tokens, len(tokens.ids)
            if not question.truncate:
                self._refuse_truncated(question, encoded)
        except (RequestError, GeneratorExit):
            raise
        except BaseException as error:  # a panic in the library is no Exception
            logger.exception("tokenising failed on model %s", self.name)
            raise ModelFailedError(self.name, repr(error)) from error

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

    def _predict(self, question: Question, tokens: Tokens, logits: Logits) -> Prediction:
        artefact = self.artefact
        metrics = self.metrics
        function = question.function_to_apply or self._default_function
        scores = rank(artefact.labels, apply_function(logits, function, artefact.temperature), question.top_k)
        best = scores[0]
        length = len(tokens.ids)
        metrics.predictions[best["label"]].inc()
        metrics.prediction_score.observe(best["score"])
        metrics.input_tokens.observe(length)
        return {
            "label": best["label"],
            "score": best["score"],
            "scores": scores,
            "tokens": length,
            "truncated": length < tokens.full_length,
        }


def _wake(tickets: Sequence[ModelTicket]) -> None:
    for ticket in tickets:
        if not ticket.waiter.done():
            ticket.waiter.set_result(None)
