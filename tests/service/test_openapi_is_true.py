"""Claims that the OpenAPI document is true: schemathesis asks what it allows and what it does not, and checks answers.

The short form is part of `make test`; `SCHEMATHESIS_EXAMPLES=200` sets the examples of each operation.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.python import asgi

from ladabert_serve.app import create_app
from ladabert_serve.http.openapi import BINARY
from ladabert_serve.settings import Settings
from tests.service.test_api_keys import LINES, OPERATORS

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "20"))
# What a document cannot say, so that a body fits the schema and is refused: it depends on the model, or on how the
# tensors of a request and their parts fit each other.
OF_THE_MODEL = (
    "reads one text",
    "compares two texts",
    "reads at most",
    "holds no artefact",
    "of the vocabulary",
    "must be -1, or",
)
OF_THE_TENSORS = (
    "must have either data or",
    "bytes of binary data",
    "is for the output 'scores' alone",
    "a second time",
    "has no tensor 'text'",
    "elements in 'text' and",
    "its shape says",
    "must be [n] or [n, 1]",
    "must be a text",
    "texts, at most",
)


REPOSITORY = "^/v2/repository"  # asked last, because it unloads models


def answers_for_a_good_reason(_: Any, failure: Any, case: Any, response: Any) -> bool:
    """Return whether a failure counts."""
    if failure.title == "Server error" and "the deadline passed" in response.text:  # as short a one as was asked for
        return False
    refused = failure.title == "Schema-valid request rejected" and response.status_code in (400, 422)
    untold = any(reason in response.text for reason in (*OF_THE_MODEL, *OF_THE_TENSORS))
    return not (refused and (untold or case.media_type == BINARY))  # of binary data, a document says nothing


@pytest.mark.parametrize("keys", [None, LINES], ids=["without keys", "with keys"])
def test_schemathesis_finds_nothing(keys: str | None, models: Path) -> None:
    config: dict[str, Any] = {"generation": {"max-examples": EXAMPLES, "deterministic": True}}
    if keys is not None:
        config["auth"] = {"openapi": {"bearer": {"bearer": OPERATORS}}}
    app = create_app(Settings(models=models, api_keys=keys))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(config))
    schema.hook("filter_failure")(answers_for_a_good_reason)
    try:
        found, statuses = run(schema.exclude(path_regex=REPOSITORY))
        if keys is not None:
            schema.config.phases.stateful.enabled = False  # its routes link to none
            found += run(schema.include(path_regex=REPOSITORY))[0]
    finally:
        asgi.shutdown_lifespans()
    assert found == []
    assert statuses >= {200, 404, 405, 415, 422} | ({401} if keys else set())


def run(schema: Any) -> tuple[list[str], set[int]]:
    """Return a line for each check that failed, and the statuses that were seen."""
    found: list[str] = []
    statuses: set[int] = set()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(repr(event))
        elif isinstance(event, events.ScenarioFinished):
            recorder = event.recorder
            answers = [each.response for each in recorder.interactions.values()]
            statuses |= {answer.status_code for answer in answers if answer is not None}
            for case_id, checks in recorder.checks.items():
                case = recorder.cases[case_id].value
                found += [
                    f"{event.label}: {check.name}: {check.failure_info.failure}: {case.as_curl_command()}"
                    for check in checks
                    if check.failure_info is not None
                ]
    return found, statuses
