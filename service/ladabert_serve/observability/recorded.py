"""What log lines and traces need to know of a request that was answered."""

from collections.abc import Sequence
from typing import Protocol


class RecordedText(Protocol):
    """One input."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def text_pair(self) -> str | None:
        """The second text of a pair."""


class RecordedQuestion(Protocol):
    """What was asked."""

    @property
    def inputs(self) -> Sequence[RecordedText]:
        """The inputs, in order."""


class RecordedTicket(Protocol):
    """The way of an admitted request; times are in seconds on the monotonic clock."""

    admitted_at: float

    @property
    def request(self) -> RecordedQuestion:
        """What was asked."""

    def steps(self) -> list[tuple[str, float, float]]:
        """Return name, begin and end of each step that was gone through."""


class RecordedCall(Protocol):
    """One request to an inference route."""

    path: str
    model: str
    request_id: str
    started_at: float

    @property
    def ticket(self) -> RecordedTicket | None:
        """None for a request that was not admitted."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the headers were read."""

    def header(self, name: bytes) -> str:
        """Return a header's value, empty where there is none."""
