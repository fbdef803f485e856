"""A cascade: texts of which one model is not sure go on to the next, within one request.

A stage is a served model, whose queue, runners and cache it shares with that model's own callers.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from ladabert_serve.errors import DrainingError, FieldError, InvalidRequestError, QueueFullError, StartError
from ladabert_serve.models.artefact import TOKENIZER_FILE, Artefact
from ladabert_serve.models.cache import Known
from ladabert_serve.models.model import Model
from ladabert_serve.models.question import Admitted, ModelBatcher, ModelTicket, Prediction, Question, Sampler
from ladabert_serve.models.served import Served
from ladabert_serve.models.stages import Judge
from ladabert_serve.models.tokenizer import TextInput
from ladabert_serve.observability.cascade_metrics import CascadeMetrics
from ladabert_serve.observability.model_metrics import ModelMetrics
from ladabert_serve.scheduling.batcher import TEXTS_AT_A_TIME
from ladabert_serve.scheduling.flows import Place

Overload = Literal["degrade", "refuse"]


class _Answer(NamedTuple):
    """What the last stage that was asked says of one input."""

    known: Known  # its logits in the order of the cascade's labels, over the stage's temperature
    stage: int
    route: tuple[str, ...]
    goes_on: bool = False
    degraded: bool = False

    def degraded_by(self, stage: str) -> "_Answer":
        """Return it as the final answer, because the next stage is overloaded."""
        return self._replace(degraded=True, route=(*self.route, f"{stage}:overloaded"))


class Cascade(Served):
    """Asks the stages of a cascade, which are served under their own names, one after the other.

    Where a later stage refuses what goes on to it because its queue is full, `overload` says whether the answer is the
    last one that is known, or the refusal.
    """

    def __init__(
        self,
        artefact: Artefact,
        stages: Sequence[Model],
        metrics: ModelMetrics,
        overload: Overload,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(artefact, metrics, sampler)
        assert metrics.cascade is not None
        first = stages[0]
        self.graph_file = first.graph_file
        self.precision = first.precision
        self.provider = first.provider
        self.runners = first.runners
        self.batcher = first.batcher
        self.tokenizer = first.tokenizer
        self._stages = list(stages)
        self._judges = [
            Judge(stage, model.artefact.labels, model.artefact.temperature, artefact.manifest)
            for stage, model in zip(artefact.stages, stages, strict=True)
        ]
        self._metrics: CascadeMetrics = metrics.cascade
        self._overload = overload
        self._one_tokenizer = len({_tokenizer_of(model.artefact) for model in stages}) == 1
        self._tickets: dict[ModelTicket, ModelBatcher] = {}  # that are not settled

    @property
    def healthy(self) -> bool:
        """Whether every stage's last runs did not fail."""
        return all(stage.healthy for stage in self._stages)

    @property
    def live(self) -> bool:
        """Whether every stage can still replace its runners."""
        return all(stage.live for stage in self._stages)

    def start(self) -> None:
        """Follow the stages' health."""
        for stage in self._stages:
            stage.health_changed.append(self._report_health)
        for one, other in itertools.combinations(self._stages, 2):
            one.batcher.lane.share_callers(other.batcher.lane)
        self._report_health(True)

    def _report_health(self, _: bool) -> None:
        if not self._draining:
            self.metrics.ready_changed(self.healthy)

    def abort(self) -> None:
        """Answer the remaining requests with DrainingError."""
        for ticket, batcher in list(self._tickets.items()):
            batcher.fail(ticket, DrainingError())

    def stop(self) -> None:
        """Answer the remaining requests with DrainingError, and leave the stages alone."""
        super().stop()
        with contextlib.suppress(ValueError):  # it was stopped before
            for stage in self._stages:
                stage.health_changed.remove(self._report_health)
            for one, other in itertools.combinations(self._stages, 2):
                one.batcher.lane.share_callers(other.batcher.lane, False)

    def free(self) -> None:
        """Let the stages go."""
        self._stages.clear()

    async def _classify(
        self, question: Question, deadline: float, admitted: Admitted, flow: str | None
    ) -> list[Prediction]:
        if self._draining:
            raise DrainingError
        if not self._one_tokenizer:
            self._refuse_tokens(question)
        answers = await self._answers(question, deadline, admitted, flow)
        predictions = await self._predictions(question, [answer.known for answer in answers])
        for prediction, answer in zip(predictions, answers, strict=True):
            self._metrics.answers[answer.stage].inc()
            prediction["stage"] = self._stages[answer.stage].name
            prediction["degraded"] = answer.degraded
            if question.route:
                prediction["route"] = list(answer.route)
        return predictions

    async def _answers(
        self, question: Question, deadline: float, admitted: Admitted, flow: str | None
    ) -> list[_Answer]:
        # A text that goes on has its place in the next queue from now, before those that come while it is computed.
        places: list[Place | None] = [None, *(stage.batcher.place(flow) for stage in self._stages[1:])]
        answers: dict[int, _Answer] = {}
        unsure: Sequence[int] = range(len(question.inputs))
        for number, (stage, place) in enumerate(zip(self._stages, places, strict=True)):
            asked = question if number == 0 else _part_of(question, unsure)
            begun = time.monotonic()
            try:
                with self._tracking(admitted) as noted:
                    found = await stage.ask(asked, deadline, noted, flow, place)
            except QueueFullError:
                if number == 0 or self._overload == "refuse":
                    raise
                self._metrics.degraded[number - 1].inc(len(unsure))
                for index in unsure:
                    answers[index] = answers[index].degraded_by(stage.name)
                break
            self._metrics.durations[number].observe(time.monotonic() - begun)
            for done, (index, known) in enumerate(zip(unsure, found, strict=True), 1):
                answers[index] = self._judge(number, known, answers[index].route if number else ())
                if done % TEXTS_AT_A_TIME == 0:
                    await asyncio.sleep(0)  # other requests get their turn
            unsure = [index for index in unsure if answers[index].goes_on]
            if not unsure:
                break
        return [answers[index] for index in range(len(question.inputs))]

    @contextlib.contextmanager
    def _tracking(self, admitted: Admitted) -> Iterator[Admitted]:
        """Give what is to be called with each ticket; until the end, `abort` settles them."""
        tickets: list[ModelTicket] = []

        def noted(ticket: ModelTicket, batcher: ModelBatcher) -> None:
            tickets.append(ticket)
            self._tickets[ticket] = batcher
            admitted(ticket, batcher)

        try:
            yield noted
        finally:
            for ticket in tickets:
                del self._tickets[ticket]

    def _judge(self, number: int, found: Known, route: tuple[str, ...]) -> _Answer:
        """Return a stage's answer for one input."""
        judge, name = self._judges[number], self._stages[number].name
        known = found._replace(logits=judge.translate(found.logits))
        sure, enough = judge.judge(known.logits)
        if enough:
            return _Answer(known, number, (*route, f"{name}:ok"))
        self._metrics.escalated[number].inc()
        self._metrics.certainty[number].observe(sure)
        return _Answer(known, number, (*route, f"{name}:unsure:{sure:.2f}"), goes_on=True)

    def _refuse_tokens(self, question: Question) -> None:
        """Raise InvalidRequestError for inputs that the caller tokenised: the stages read other tokens."""
        message = f"the stages of model {self.name!r} have different tokenizers: send the text"
        wrong = [index for index, value in enumerate(question.inputs) if not isinstance(value, TextInput)]
        if wrong:
            raise InvalidRequestError([FieldError(question.paths(index), message) for index in wrong])


def _part_of(question: Question, indices: Sequence[int]) -> Question:
    """Return the question about some of its inputs, which keep their names in errors."""
    inputs = [question.inputs[index] for index in indices]
    return question._replace(inputs=inputs, paths=lambda index: question.paths(indices[index]))


def _tokenizer_of(artefact: Artefact) -> str:
    listed = artefact.manifest["files"][TOKENIZER_FILE]
    return str(listed.get("decoded_sha256", listed["sha256"]))


def check_stages(cascade: Artefact, served: Mapping[str, Artefact]) -> None:
    """Raise StartError for a stage that is not served in the version for which the cascade was made."""
    where = f"cascade {cascade.name!r}"
    for stage in cascade.stages:
        artefact = served.get(stage.name)
        if artefact is None:
            raise StartError(f"{where}: its stage {stage.name!r} is not served; put it into the same folder")
        if artefact.stages:
            raise StartError(f"{where}: its stage {stage.name!r} is a cascade, too")
        listed = artefact.manifest["files"].get(stage.file, {})
        if artefact.version != stage.version or listed.get("sha256") != stage.sha256:
            raise StartError(
                f"{where}: it was made for version {stage.version} of its stage {stage.name!r}, there is version "
                f"{artefact.version}; make the cascade anew, or give the new version another name"
            )
        same = artefact.task == cascade.task and sorted(artefact.labels) == sorted(cascade.labels)
        if not same or artefact.problem_type != cascade.problem_type:
            raise StartError(f"{where}: its stage {stage.name!r} has another task, problem_type or labels")


def check_cascades(served: Mapping[str, Artefact]) -> None:
    """Raise StartError for a cascade whose stages are not all served as it needs them."""
    for artefact in served.values():
        check_stages(artefact, served)
