"""One served model: tokenizer, batcher, runners and backend, and the way of a request through them."""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from service.batcher import TEXTS_AT_A_TIME, Batcher, BatchLimits, Ticket
from service.errors import FieldError, InvalidRequestError, ModelFailedError, RequestError
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


class Prediction(NamedTuple):
    """The answer for one input; `scores` from high to low."""

    scores: list[dict[str, Any]]  # label and score
    tokens: int
    truncated: bool


ModelTicket = Ticket[Question, Tokens, Logits]


class Caller(Protocol):
    """Who asked, and may leave before the answer."""

    deadline: float  # on the monotonic clock, in seconds

    def admitted(self, ticket: ModelTicket, left: Callable[[], None], late: Callable[[], None]) -> None:
        """Know the ticket, whose times are those of the steps; call `left` when the caller leaves, or `late`."""


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
        self.batcher: Batcher[Question, Tokens, Logits] = Batcher(limits, self._tokenize, self._deliver, metrics)
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
        self._check_task(question)

        # Admit, by an upper bound of the tokens, before any work is done; a runner tokenises, batches and runs it.
        tokens = sum(self.tokenizer.upper_bound(value) for value in question.inputs)
        settled = asyncio.get_running_loop().create_future()
        ticket = self.batcher.admit(question, tokens, caller.deadline, settled)
        try:
            caller.admitted(
                ticket,
                left=functools.partial(self.batcher.cancel, ticket),
                late=functools.partial(self.batcher.expire, ticket),
            )
            await settled
        finally:
            if not ticket.settled:  # this task itself was cancelled
                self.batcher.cancel(ticket)
        for name, begin, end in ticket.steps():
            self.metrics.steps[name].observe(end - begin)
        if ticket.error is not None:
            raise ticket.error
        return await self._predict(question, ticket.payloads, ticket.results)

    def _deliver(self, tickets: Sequence[ModelTicket]) -> None:
        """Wake the callers of settled tickets, all of a batch at once; called from any thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_wake, tickets)
        except RuntimeError:
            logger.debug("the event loop closed before this answer")

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

    async def _predict(
        self, question: Question, encoded: Sequence[Tokens], logits: Sequence[Logits]
    ) -> list[Prediction]:
        artefact = self.artefact
        function = question.function_to_apply or default_function(artefact.problem_type)
        predictions: list[Prediction] = []
        for tokens, row in zip(encoded, logits, strict=True):
            if len(predictions) % TEXTS_AT_A_TIME == TEXTS_AT_A_TIME - 1:
                await asyncio.sleep(0)  # let others be answered in between
            scores = rank(artefact.labels, apply_function(row, function, artefact.temperature), question.top_k)
            self.metrics.predictions[scores[0]["label"]].steps += 1
            self.metrics.prediction_score.observe(scores[0]["score"])
            self.metrics.input_tokens.observe(len(tokens.ids))
            predictions.append(Prediction(scores, len(tokens.ids), tokens.truncated))
        return predictions


def _wake(tickets: Sequence[ModelTicket]) -> None:
    for ticket in tickets:
        if not ticket.waiter.done():
            ticket.waiter.set_result(None)
