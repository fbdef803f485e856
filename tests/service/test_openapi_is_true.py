"""Claims that the OpenAPI document is true: schemathesis sends what it allows and what it does not, and checks answers.

The short form is part of `make test`; `SCHEMATHESIS_EXAMPLES=200` sets the examples for each operation.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.python import asgi
from schemathesis.specs.openapi.schemas import OpenApiSchema

from ladabert_serve.app import create_app
from ladabert_serve.settings import Settings
from tests.service.test_api_keys import LINES, OPERATORS, bearer

EXAMPLES = settings(
    max_examples=int(os.environ.get("SCHEMATHESIS_EXAMPLES", "20")),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def without_keys(models: Path) -> Iterator[OpenApiSchema]:
    """Return the document of a server that asks for no key."""
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(Settings(models=models)))
    asgi.shutdown_lifespans()


@pytest.fixture(scope="module")
def with_keys(models: Path) -> Iterator[OpenApiSchema]:
    """Return the document of a server that asks for keys."""
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(Settings(models=models, api_keys=LINES)))
    asgi.shutdown_lifespans()


@schemathesis.pytest.from_fixture("without_keys").parametrize()
@EXAMPLES
def test_every_answer_is_as_documented(case: schemathesis.Case) -> None:
    case.call_and_validate()


@schemathesis.pytest.from_fixture("with_keys").parametrize()
@EXAMPLES
def test_with_keys_every_answer_is_as_documented(case: schemathesis.Case) -> None:
    case.call_and_validate(headers=bearer(OPERATORS))
