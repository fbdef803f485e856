"""One answer of the server, and what is wrong with its form."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

ERRORS = ("application/problem+json", "application/json")  # the server's own, and those of the servers it stands in for


@dataclass(frozen=True)
class Answer:
    """One answer; status 0 when none came, and `end` says why: closed, silence, cut or garbage."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    end: str = ""
    wait_ms: float = 0.0  # since it was asked for

    @property
    def outcome(self) -> str:
        """The status, with what is wrong about the answer's form, or how the connection ended instead."""
        if self.end:
            return self.end
        if "x-request-id" not in self.headers:
            return f"{self.status} without id"
        if self.status >= 400 and self.headers.get("content-type", "").partition(";")[0] not in ERRORS:
            return f"{self.status} not an error in JSON"
        return str(self.status)

    @property
    def predictions(self) -> list[tuple[str, float]]:
        """Label and score of each prediction in a 200, to five digits."""
        found = json.loads(self.body)["predictions"]
        return [(entry["label"], round(entry["score"], 5)) for entry in found]
