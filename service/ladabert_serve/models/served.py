"""What answers under one name, a single artefact or a cascade of them: from logits to predictions."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from ladabert_serve.errors import FieldError, InvalidRequestError
from ladabert_serve.models.artefact import Artefact
from ladabert_serve.models.cache import Known
from ladabert_serve.models.question import Admitted, ModelBatcher, Prediction, Question, Sampler
from ladabert_serve.models.scores import FunctionToApply, apply_function, default_function, rank
from ladabert_serve.models.tokenizer import TextTokenizer
from ladabert_serve.observability.model_metrics import ModelMetrics
from ladabert_serve.scheduling.batcher import TEXTS_AT_A_TIME

State = Literal["ready", "draining", "failed"]


class Served(ABC):
    """Answers questions under the name of an artefact; started and stopped by the repository."""

    graph_file: str
    provider: str
    precision: str  # `fp32`, `int8` or `fp16`
    runners: int
    batcher: ModelBatcher  # to which requests are admitted first
    tokenizer: TextTokenizer

    def __init__(self, artefact: Artefact, metrics: ModelMetrics, sampler: Sampler | None) -> None:
        self.artefact = artefact
        self.metrics = metrics
        self.sampler = sampler
        self._reads_pairs = artefact.task == "pair"
        self._default_function = default_function(artefact.problem_type)
        self._questions = 0  # that are being answered
        self._draining = False

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self.artefact.name

    @property
    def shadow_name(self) -> str | None:
        """The name of the model that it is compared with."""
        return None if self.sampler is None else self.sampler.name

    @property
    def idle(self) -> bool:
        """Whether it answers no question now."""
        return self._questions == 0

    @property
    def state(self) -> State:
        """`ready`, `draining` or `failed`."""
        if self._draining:
            return "draining"
        return "ready" if self.healthy else "failed"

    @property
    @abstractmethod
    def healthy(self) -> bool:
        """Whether its last runs did not fail."""

    @property
    @abstractmethod
    def live(self) -> bool:
        """Whether it can still replace its runners; if not, only a restart of the process helps."""

    @abstractmethod
    def start(self) -> None:
        """Let the runners work for it; called on the callers' event loop."""

    def drain(self) -> None:
        """Admit nothing from now on, and drop what no caller waits for."""
        self._draining = True
        if self.sampler is not None:
            self.sampler.close()
        self.metrics.ready_changed(0)

    @abstractmethod
    def abort(self) -> None:
        """Answer the remaining requests with DrainingError."""

    def stop(self) -> None:
        """Answer the remaining requests with DrainingError and let the runners go."""
        self.drain()
        self.abort()

    @abstractmethod
    def free(self) -> None:
        """Give back what it holds after the last answer; nobody may ask it then."""

    async def classify(
        self, question: Question, deadline: float, admitted: Admitted, flow: str | None = None
    ) -> list[Prediction]:
        """Return the predictions in the order of the inputs; raises RequestError.

        `admitted` gets each ticket, to `cancel` when the caller hangs up and to `expire` at the deadline, which is on
        the monotonic clock. Questions of one `flow` together get the share of one caller.
        """
        if any((value.text_pair is None) is self._reads_pairs for value in question.inputs):
            raise self._wrong_task(question)
        self._questions += 1
        try:
            return await self._classify(question, deadline, admitted, flow)
        finally:
            self._questions -= 1

    @abstractmethod
    async def _classify(
        self, question: Question, deadline: float, admitted: Admitted, flow: str | None
    ) -> list[Prediction]: ...

    async def _predictions(self, question: Question, answers: Sequence[Known]) -> list[Prediction]:
        predictions: list[Prediction] = []
        for index, known in enumerate(answers):
            predictions.append(self._predict(question, known))
            if self.sampler is not None:
                self.sampler.offer(question, index, known)
            if len(predictions) % TEXTS_AT_A_TIME == 0:
                await asyncio.sleep(0)  # other requests get their turn
        return predictions

    def _predict(self, question: Question, known: Known) -> Prediction:
        logits = known.logits
        artefact = self.artefact
        metrics = self.metrics
        function = question.function_to_apply or self._default_function
        scores = rank(artefact.labels, apply_function(logits, function, artefact.temperature), question.top_k)
        best = scores[0]
        score = self._served_score(function, best["score"], logits)
        metrics.predictions[best["label"]].inc()
        if self._default_function != "none":  # the number of a regression is no score from 0 to 1
            metrics.prediction_score.observe(score)
        metrics.input_tokens.observe(known.tokens)
        if metrics.live is not None:
            metrics.live.observe(logits.index(max(logits)), score, known.tokens)
        return {
            "label": best["label"],
            "score": best["score"],
            "scores": scores,
            "tokens": known.tokens,
            "truncated": known.truncated,
        }

    def _served_score(self, function: FunctionToApply, score: float, logits: Sequence[float]) -> float:
        """Return the best label's score by the model's own function, whatever function was asked for."""
        own = self._default_function
        return score if function == own else max(apply_function(logits, own, self.artefact.temperature))

    def _wrong_task(self, question: Question) -> InvalidRequestError:
        """Return the error for a text where the model reads a pair, or the other way round."""
        pairs = self._reads_pairs
        if pairs:
            message = f"model {self.name!r} compares two texts: send {{text, text_pair}}"
        else:
            message = f"model {self.name!r} reads one text: leave text_pair out"
        wrong = [index for index, value in enumerate(question.inputs) if (value.text_pair is None) is pairs]
        return InvalidRequestError([FieldError(question.paths(index), message) for index in wrong])

    def describe(self) -> dict[str, Any]:
        """Return its live state, as JSON."""
        return {
            "file": self.graph_file,
            "runners": self.runners,
            "queue_depth": self.batcher.queue_depth,
            "requests_in_progress": self.batcher.live_requests,
        }
