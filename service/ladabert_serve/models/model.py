"""One artefact that is served: how a request passes through its tokenizer, batcher, runners and backend."""

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence

from ladabert_serve.errors import FieldError, InvalidRequestError, ModelFailedError, RequestError
from ladabert_serve.models.cache import AnswerCache, Known
from ladabert_serve.models.inference import Inference, Logits
from ladabert_serve.models.question import Admitted, ModelBatcher, ModelTicket, Prediction, Question, Sampler
from ladabert_serve.models.served import Served
from ladabert_serve.models.tokenizer import TextInput, TokenInput, Tokens
from ladabert_serve.observability.model_metrics import ModelMetrics
from ladabert_serve.scheduling.batcher import Batcher
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.scheduling.flows import Place
from ladabert_serve.scheduling.runner import RunnerPool
from ladabert_serve.scheduling.ticket import Preparation
from ladabert_serve.scheduling.turns import Lane
from ladabert_serve.scheduling.workload import Workload

logger = logging.getLogger(__name__)

# Of what is computed in idle time: one text a run, so that a caller who comes meanwhile waits for one text at most.
IDLE_LIMITS = BatchLimits(1, 1 << 20, 0.0, 1 << 20, 1 << 30, float("inf"), 1)


class Model(Served):
    """Answers questions with one artefact.

    Of the pool's runners it has at most `most_runs` at a time, and a share that follows `weight` while others are busy.
    """

    def __init__(
        self,
        inference: Inference,
        graph_file: str,
        limits: BatchLimits,
        pool: RunnerPool,
        metrics: ModelMetrics,
        max_run_s: float,
        weight: float = 1.0,
        most_runs: int | None = None,
        cache: AnswerCache | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        artefact = inference.artefact
        super().__init__(artefact, metrics, sampler)
        self.graph_file = graph_file
        self.precision = artefact.precision_of(graph_file)
        self.provider = inference.backend.provider
        self.runners = pool.count if most_runs is None else min(most_runs, pool.count)
        self.tokenizer = inference.tokenizer
        lane = Lane(pool.turns, weight, most_runs)
        self.batcher: ModelBatcher = Batcher(limits, self._tokenize, self._deliver, metrics, lane)
        self._pool = pool
        self._workload: Workload[Tokens, Logits] = Workload(
            name=artefact.name,
            lane=lane,
            run=inference.run,
            probe=inference.warm_up,
            failure=functools.partial(ModelFailedError, artefact.name),
            report=self._report_health,
            max_run_s=max_run_s,
        )
        self.health_changed: list[Callable[[bool], None]] = []  # each is told, from any thread
        self._cache = cache
        self._idle_batcher: ModelBatcher | None = None
        self._idle_workload: Workload[Tokens, Logits] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # on which the callers wait

    @property
    def healthy(self) -> bool:
        """Whether its last runs did not fail."""
        return self._pool.healthy(self._workload)

    @property
    def live(self) -> bool:
        """Whether the model can still replace its runners; if not, only a restart of the process helps."""
        return self._workload.live

    def start(self) -> None:
        """Let the runners work for it; called on the callers' event loop."""
        self._loop = asyncio.get_running_loop()
        self._pool.add(self._workload)

    def in_idle_time(self) -> ModelBatcher:
        """Return the queue of questions that run while no caller of any model waits.

        A ticket's `waiter` is called with the ticket once it is settled, by any thread. Called on the event loop.
        """
        if self._idle_batcher is None:
            lane = Lane(self._pool.turns, most_runs=1, background=True)
            self._idle_batcher = Batcher(IDLE_LIMITS, self._tokenize, _call_waiters, _Unobserved(), lane)
            callers = self._workload
            self._idle_workload = Workload(
                f"{self.name} in idle time",
                lane,
                callers.run,
                callers.probe,
                callers.failure,
                _ignore,
                callers.max_run_s,
            )
            self._pool.add(self._idle_workload)
            if self._draining:
                self._idle_batcher.drain()
        return self._idle_batcher

    def drain(self) -> None:
        """Admit nothing from now on, and drop what no caller waits for."""
        super().drain()
        if self._idle_batcher is not None:
            self._idle_batcher.abort()
        self.batcher.drain()

    def abort(self) -> None:
        """Answer the remaining requests with DrainingError."""
        self.batcher.abort()

    def stop(self) -> None:
        """Answer the remaining requests with DrainingError and let the runners go."""
        super().stop()
        self._pool.remove(self._workload)
        if self._idle_workload is not None:
            self._pool.remove(self._idle_workload)

    def free(self) -> None:
        """Give back graph and tokenizer after the last answer.

        Nobody may ask it then. A cycle of model and batcher would keep them: the collector does not look at what was
        there at the start.
        """
        del self.batcher.lane.work, self.batcher, self._workload, self.tokenizer
        if self._idle_batcher is not None:
            del self._idle_batcher.lane.work, self._idle_batcher, self._idle_workload

    async def _classify(
        self, question: Question, deadline: float, admitted: Admitted, flow: str | None
    ) -> list[Prediction]:
        return await self._predictions(question, await self._answers(question, deadline, admitted, flow, None))

    async def ask(
        self, question: Question, deadline: float, admitted: Admitted, flow: str | None, place: Place | None
    ) -> list[Known]:
        """Return what is known of each input afterwards, for a cascade; raises RequestError.

        `place` is what the batcher gave when the request came.
        """
        self._questions += 1
        try:
            return await self._answers(question, deadline, admitted, flow, place)
        finally:
            self._questions -= 1

    async def _answers(
        self, question: Question, deadline: float, admitted: Admitted, flow: str | None, place: Place | None
    ) -> list[Known]:
        keys: Sequence[bytes] = ()
        if self._cache is not None:
            keys = [self._key(self._cache, question, value) for value in question.inputs]
            question = self._recall(self._cache, question, keys)
        if len(question.known) == len(question.inputs):
            ticket = self.batcher.settled(question, place)
            admitted(ticket, self.batcher)
        else:
            ticket = await self._compute(question, deadline, admitted, flow, place)
        computed = map(_known, ticket.payloads, ticket.results)
        answers = [question.known.get(index) or next(computed) for index in range(len(question.inputs))]
        if self._cache is not None:
            for key, known in zip(keys, answers, strict=True):
                self._cache.put(key, known)
        return answers

    async def _compute(
        self,
        question: Question,
        deadline: float,
        admitted: Admitted,
        flow: str | None,
        place: Place | None,
    ) -> ModelTicket:
        """Return the ticket with the results of what is not known; raises RequestError."""
        # Admit by upper bounds, before any work is done; a runner tokenises, batches and runs the texts.
        tokens = preparation_bytes = 0
        for index, value in enumerate(question.inputs):
            if index not in question.known:
                tokens_of_value, bytes_of_value = self.tokenizer.upper_bounds(value)
                tokens += tokens_of_value
                preparation_bytes += bytes_of_value
        settled = asyncio.get_running_loop().create_future()
        ticket = self.batcher.admit(question, tokens, preparation_bytes, deadline, settled, flow, place)
        try:
            admitted(ticket, self.batcher)
            await settled
        finally:
            if not ticket.settled:  # this task itself was cancelled
                self.batcher.cancel(ticket)
        for name, begin, end in ticket.steps():
            self.metrics.steps[name].observe(end - begin)
        if ticket.error is not None:
            raise ticket.error
        return ticket

    @staticmethod
    def _key(cache: AnswerCache, question: Question, value: TextInput | TokenInput) -> bytes:
        return cache.key(value, question.truncation_direction, question.max_tokens, question.add_special_tokens)

    def _recall(self, cache: AnswerCache, question: Question, keys: Sequence[bytes]) -> Question:
        """Return the question with what is known of its inputs; a cut text that may not be cut is to be refused."""
        found = {index: known for index, key in enumerate(keys) if (known := cache.get(key)) is not None}
        found = {index: known for index, known in found.items() if question.truncate or not known.truncated}
        self.metrics.cache["hit"].inc(len(found))
        self.metrics.cache["miss"].inc(len(keys) - len(found))
        return question._replace(known=found) if found else question

    def _report_health(self, healthy: bool) -> None:
        if not self._draining:
            self.metrics.ready_changed(healthy)
        for tell in self.health_changed:
            tell(healthy)

    def _deliver(self, tickets: Sequence[ModelTicket]) -> None:
        """Wake the callers of settled tickets, all of a batch at once; called from any thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_wake, tickets)
        except RuntimeError:
            logger.debug("the event loop closed before this answer")

    def _tokenize(self, question: Question) -> Preparation[Tokens]:
        """Tokenise one input after the other; called by a runner. Raises RequestError."""
        encoded: list[tuple[Tokens, int]] = []
        errors: list[FieldError] = []
        try:
            last: TextInput | TokenInput | None = None
            for index, value in enumerate(question.inputs):
                if index in question.known:
                    continue
                if last is not None:
                    yield self.tokenizer.upper_bounds(last)[1]
                last = value
                tokens = self.tokenizer.tokenize(
                    value, question.truncation_direction, question.max_tokens, question.add_special_tokens
                )
                encoded.append((tokens, len(tokens.ids)))
                if tokens.truncated and not question.truncate:
                    errors.append(FieldError(question.paths(index), self._too_long(value)))
            if errors:
                raise InvalidRequestError(errors)
        except (RequestError, GeneratorExit):
            raise
        except BaseException as error:  # a panic in the library is no Exception
            logger.exception("tokenising failed on model %s", self.name)
            raise ModelFailedError(self.name, repr(error)) from error
        return encoded

    def _too_long(self, value: TextInput | TokenInput) -> str:
        return (
            f"has {self.tokenizer.full_length(value)} tokens, model {self.name!r} reads at most "
            f"{self.artefact.max_length}; shorten it or allow truncation"
        )


def _known(tokens: Tokens, logits: Logits) -> Known:
    return Known(logits, len(tokens.ids), tokens.truncated)


class _Unobserved:
    """Observes a batcher that no metric is about."""

    def queue_depth_changed(self, depth: int) -> None:
        """Ignore."""

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """Ignore."""


def _ignore(_: bool) -> None:
    """Ignore the health of runs in idle time: whoever waits for them counts those that failed."""


def _call_waiters(tickets: Sequence[ModelTicket]) -> None:
    for ticket in tickets:
        ticket.waiter(ticket)


def _wake(tickets: Sequence[ModelTicket]) -> None:
    for ticket in tickets:
        if not ticket.waiter.done():
            ticket.waiter.set_result(None)
