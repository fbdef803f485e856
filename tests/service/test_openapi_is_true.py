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
from ladabert_serve.settings import Settings
from tests.service.test_api_keys import LINES, OPERATORS

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "20"))
# What a document cannot say, because it depends on the model: a body that fits the schema, and is refused with 422.
OF_THE_MODEL = ("reads one text", "compares two texts", "reads at most")


def answers_for_a_good_reason(_: Any, failure: Any, case: Any, response: Any) -> bool:
    """Return whether a failure counts."""
    refused = failure.title == "Schema-valid request rejected" and response.status_code == 422
    return not (refused and any(reason in response.text for reason in OF_THE_MODEL))


@pytest.mark.parametrize("keys", [None, LINES], ids=["without keys", "with keys"])
def test_schemathesis_finds_nothing(keys: str | None, models: Path) -> None:
    config: dict[str, Any] = {"generation": {"max-examples": EXAMPLES, "deterministic": True}}
    if keys is not None:
        config["auth"] = {"openapi": {"bearer": {"bearer": OPERATORS}}}
    app = create_app(Settings(models=models, api_keys=keys))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(config))
    schema.hook("filter_failure")(answers_for_a_good_reason)
    try:
        found, statuses = run(schema)
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
            found.append(str(vars(event) if hasattr(event, "__dict__") else event))
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
