"""Everything that goes wrong on purpose, and the one table that turns it into HTTP.

ServiceError
├── StartError                     the server cannot start
│   ├── ArtefactError              an artefact is missing, broken or not what its manifest says
│   └── ProviderError              the execution provider that was asked for is not there
├── InferenceError                 a run of the graph failed or gave an unusable output
└── RequestError                   this request cannot be answered with 200
    ├── MalformedRequestError      what came is not HTTP
    ├── NotJsonError               the body is not UTF-8 or not JSON
    ├── HostNotAllowedError        the Host header names none of the allowed hosts
    ├── UnauthenticatedError       API keys are configured and the request has none that fits
    ├── ForbiddenError             the API key lacks the scope that the route needs
    ├── UnknownModelError          no model has that name
    ├── UnknownVersionError        the model is there in another version only
    ├── TooLargeError              body, number of inputs or one text over the limit
    ├── UnsupportedMediaError      the body is not declared as JSON
    ├── InvalidRequestError        JSON that does not fit the schema or the model
    ├── QueueFullError             more waits already than the limits allow
    ├── RateLimitedError           the API key has used up its requests for now
    ├── HeadersTooLargeError       a request's headers or trailers are over the limit
    ├── TooManyConnectionsError    every connection that the limit allows is busy
    ├── NotLiveError               only a restart of the process helps
    ├── NotReadyError              the default model cannot answer now
    ├── DrainingError              the server is shutting down
    ├── ModelFailedError           the model failed on this request
    ├── DeadlineExceededError      the deadline passed before an answer
    └── CallerLeftError            the caller hung up; nobody reads the answer
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

RETRY_AFTER_S = 1  # where nothing better is known
LONGEST_LINE = 1000  # characters


class ServiceError(Exception):
    """The root: catching it catches nothing that is a bug."""


class StartError(ServiceError):
    """The server cannot start; the message is the one line that the operator reads, whatever its parts hold."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class ArtefactError(StartError):
    """An artefact is missing, broken or not what its manifest says."""


class ProviderError(StartError):
    """The execution provider that was asked for is not there."""


class InferenceError(ServiceError):
    """A run of the graph failed or gave an output of the wrong shape or without finite numbers."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class RequestError(ServiceError):
    """This request cannot be answered with 200; `detail` says why and what to do."""

    detail = ""  # of an error that has always the same
    retry_after_s = RETRY_AFTER_S

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail
        super().__init__(self.detail)


class MalformedRequestError(RequestError):
    """What came is not an HTTP request."""

    detail = "this is not an HTTP request; the connection is closed"


class NotJsonError(RequestError):
    """The body is not UTF-8 or not JSON."""


class HostNotAllowedError(RequestError):
    """The Host header names none of the allowed hosts."""

    detail = "this server does not answer under the name in the Host header"


class UnauthenticatedError(RequestError):
    """API keys are configured and the request has none that fits."""

    detail = "send a valid API key, as Authorization: Bearer KEY or as X-API-Key: KEY"


class ForbiddenError(RequestError):
    """The API key lacks the scope that the route needs."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs an API key with the scope {scope!r}")


class UnknownModelError(RequestError):
    """No model has that name."""

    def __init__(self, name: str, served: Sequence[str]) -> None:
        shown = name if len(name) <= 128 else name[:128] + "…"
        super().__init__(f"no model named {shown!r}; served are: {', '.join(served)}")
        self.name = name


class UnknownVersionError(RequestError):
    """The model is there in another version only."""

    def __init__(self, model: str, version: str, served: str) -> None:
        shown = version if len(version) <= 128 else version[:128] + "…"
        super().__init__(f"model {model!r} has no version {shown!r}; served is {served!r}")


class TooLargeError(RequestError):
    """Body, number of inputs or one text over the limit."""

    def __init__(self, what: str, size: int, limit: int, unit: str) -> None:
        super().__init__(f"{what} has {size} {unit}, at most {limit} are accepted")
        self.size = size
        self.limit = limit


class UnsupportedMediaError(RequestError):
    """The body is not declared as JSON."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that does not fit: its path as in `inputs[3].text`, and why."""

    path: str
    message: str


class InvalidRequestError(RequestError):
    """JSON that does not fit the schema or the model."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first.path}: {first.message}{more}" if first.path else f"{first.message}{more}")
        self.errors = tuple(errors)


class QueueFullError(RequestError):
    """More waits already than the limits allow; `retry_after_s` is when that should be over."""

    def __init__(self, detail: str, wait_s: float) -> None:
        super().__init__(f"{detail}; try again later")
        self.retry_after_s = max(RETRY_AFTER_S, math.ceil(wait_s))


class RateLimitedError(RequestError):
    """The API key has used up its requests for now; `retry_after_s` is when it may send the next one."""

    def __init__(self, requests_per_s: float, wait_s: float) -> None:
        super().__init__(f"this API key may send {requests_per_s:g} requests a second; try again later")
        self.retry_after_s = max(RETRY_AFTER_S, math.ceil(wait_s))


class HeadersTooLargeError(RequestError):
    """A request's headers or trailers are over the limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"headers, trailers and chunk sizes may have {limit_bytes} bytes; the connection is closed")


class TooManyConnectionsError(RequestError):
    """Every connection that the limit allows is busy."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} connections are busy; try again later")


class NotLiveError(RequestError):
    """Only a restart of the process helps: a model's runs hang and cannot be replaced any more."""


class NotReadyError(RequestError):
    """The default model cannot answer now."""


class DrainingError(RequestError):
    """The server is shutting down."""

    detail = "the server is shutting down; ask another one"


class ModelFailedError(RequestError):
    """The model failed on this request; `cause` is for the server's log, beside the request's id."""

    def __init__(self, model: str, cause: str) -> None:
        super().__init__(f"model {model!r} failed on this request; the cause is in the server's log")
        self.cause = cause


class DeadlineExceededError(RequestError):
    """The deadline passed before an answer."""

    detail = "the deadline passed before an answer; raise its timeout or send fewer texts"


class CallerLeftError(RequestError):
    """The caller hung up; nobody reads the answer."""

    detail = "the caller hung up"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one kind of error looks from outside: in HTTP and, where it is a rejection, in the metrics."""

    status: int
    title: str
    retry: bool = False  # whether asking again later may help: adds Retry-After
    rejected_reason: str | None = None
    challenge: str | None = None  # how to authenticate: adds WWW-Authenticate
    in_dialects: tuple[int, ...] = ()  # other statuses that dialects send for it


def _one_line(text: str) -> str:
    """Return a text that a terminal shows as one line: cut, and with escapes for what is not printable."""
    line = " ".join(text[: 2 * LONGEST_LINE].split())
    printable = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    return printable if len(printable) <= LONGEST_LINE else printable[:LONGEST_LINE] + "…"


OUTCOMES: dict[type[RequestError], Outcome] = {
    MalformedRequestError: Outcome(400, "Malformed request"),
    NotJsonError: Outcome(400, "Body is not JSON"),
    HostNotAllowedError: Outcome(400, "Host not allowed"),
    UnauthenticatedError: Outcome(401, "Unauthenticated", challenge="Bearer"),
    ForbiddenError: Outcome(403, "Forbidden"),
    UnknownModelError: Outcome(404, "Unknown model"),
    UnknownVersionError: Outcome(404, "Unknown version"),
    TooLargeError: Outcome(413, "Too large", rejected_reason="too_large", in_dialects=(400,)),
    UnsupportedMediaError: Outcome(415, "Unsupported media type"),
    InvalidRequestError: Outcome(422, "Invalid request", in_dialects=(400,)),
    QueueFullError: Outcome(429, "Queue full", retry=True, rejected_reason="queue_full", in_dialects=(503,)),
    RateLimitedError: Outcome(429, "Rate limited", retry=True, rejected_reason="rate_limited", in_dialects=(503,)),
    HeadersTooLargeError: Outcome(431, "Headers too large"),
    TooManyConnectionsError: Outcome(503, "Too many connections", retry=True),
    CallerLeftError: Outcome(499, "Caller hung up", rejected_reason="cancelled"),
    NotLiveError: Outcome(503, "Not live", retry=True),
    NotReadyError: Outcome(503, "Not ready", retry=True),
    DrainingError: Outcome(503, "Shutting down", retry=True, rejected_reason="draining"),
    ModelFailedError: Outcome(503, "Model failed", retry=True, in_dialects=(424,)),
    DeadlineExceededError: Outcome(504, "Deadline exceeded", rejected_reason="deadline", in_dialects=(503,)),
}
