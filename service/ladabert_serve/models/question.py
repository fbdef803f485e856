"""A request to a model and its answers, independent of routes."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

from ladabert_serve.models.cache import Known
from ladabert_serve.models.inference import Logits
from ladabert_serve.models.scores import FunctionToApply
from ladabert_serve.models.tokenizer import TextInput, TokenInput, Tokens, TruncationDirection
from ladabert_serve.scheduling.batcher import Batcher
from ladabert_serve.scheduling.ticket import Ticket


class Question(NamedTuple):
    """A request to a model, independent of its route."""

    inputs: Sequence[TextInput | TokenInput]
    top_k: int | None = None
    function_to_apply: FunctionToApply | None = None
    truncate: bool = True
    truncation_direction: TruncationDirection = "right"
    paths: Callable[[int], str] = "inputs[{}]".format  # the name of input i in the route's errors
    max_tokens: int | None = None  # of an input, special ones included; the model may read fewer
    add_special_tokens: bool = True
    route: bool = False  # whether a cascade says which stages it asked
    known: Mapping[int, Known] = MappingProxyType({})  # inputs that need not be computed


class Prediction(TypedDict):
    """The answer for one input: the best label, its score, and the requested scores from high to low."""

    label: str
    score: float
    scores: list[dict[str, Any]]  # label and score
    tokens: int
    truncated: bool
    stage: NotRequired[str]  # of a cascade: the stage that answered
    degraded: NotRequired[bool]  # and whether it did so unsure, because the next one was overloaded
    route: NotRequired[list[str]]


ModelTicket = Ticket[Question, Tokens, Logits]
ModelBatcher = Batcher[Question, Tokens, Logits]
Admitted = Callable[[ModelTicket, ModelBatcher], None]


class Sampler(Protocol):
    """Looks at answers beside the callers; all of it is quick."""

    name: str  # of the model that it compares them with

    def offer(self, question: Question, index: int, known: Known) -> None:
        """Get one input of a question with what was answered."""

    def close(self) -> None:
        """Get nothing more."""

    def describe(self) -> dict[str, Any]:
        """Return what was found, as JSON."""
