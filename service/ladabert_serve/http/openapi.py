"""What the routes say about themselves in /openapi.json beyond what FastAPI knows."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ladabert_serve.errors import (
    OUTCOMES,
    CallerLeftError,
    ForbiddenError,
    NotLiveError,
    RequestError,
    UnauthenticatedError,
)
from ladabert_serve.http.inference_route import InferenceRoute
from ladabert_serve.http.problem import MEDIA_TYPE
from ladabert_serve.http.schemas import Problem

# What an inference route and what is before it answer. Nobody reads an answer to a caller who left, and every key has
# the scope that inference needs.
OF_OTHER_ROUTES = (CallerLeftError, ForbiddenError, NotLiveError)
INFERENCE_ERRORS = [error for error in OUTCOMES if error not in OF_OTHER_ROUTES]
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
OPEN_TAGS = {"health", "metrics"}  # of the routes that ask for no key
REFERENCE = "#/components/schemas/{model}"


def problem_responses(errors: Iterable[type[RequestError]]) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of these errors, by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        outcome = OUTCOMES[error]
        text = (error.__doc__ or "").splitlines()[0]
        if outcome.status in responses:
            responses[outcome.status]["description"] += f" {text}"
            continue
        response: dict[str, Any] = {
            "description": text,
            "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model="Problem")}}},
        }
        if outcome.retry:
            schema = {"schema": {"type": "integer"}, "description": "Seconds."}
            response["headers"] = {"Retry-After": schema}
        responses[outcome.status] = response
    return responses


def describe(app: FastAPI, inference: Iterable[InferenceRoute], with_keys: bool) -> None:
    """Let the application's OpenAPI document hold these routes, too, which FastAPI does not validate.

    `with_keys`: routes ask for an API key.
    """
    routes = list(inference)
    own = app.openapi  # FastAPI's document of its own routes, made once

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = own()
            _add_routes(schema, routes)
            if with_keys:
                _add_keys(schema)
        return own()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def _add_routes(schema: dict[str, Any], routes: Iterable[InferenceRoute]) -> None:
    models: set[tuple[type[BaseModel], str]] = set()
    for route in routes:
        schema["paths"][route.path] = {"post": _operation(route)}
        models |= {(route.request_model, "validation"), (route.response_model, "serialization")}
    _, definitions = models_json_schema([*models, (Problem, "serialization")], ref_template=REFERENCE)  # type: ignore[list-item]
    schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])


def _add_keys(schema: dict[str, Any]) -> None:
    """Let every operation but the open ones ask for a key, and answer 401 without."""
    schema["components"]["securitySchemes"] = SECURITY_SCHEMES
    for operation in (operation for path in schema["paths"].values() for operation in path.values()):
        if OPEN_TAGS.isdisjoint(operation.get("tags", ())):
            operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
            operation["responses"].setdefault("401", problem_responses([UnauthenticatedError])[401])


def _operation(route: InferenceRoute) -> dict[str, Any]:
    def json_content(model: type[BaseModel]) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}

    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "OK", "content": json_content(route.response_model)},
        **problem_responses(INFERENCE_ERRORS),
    }
    return {
        "tags": ["inference"],
        "summary": route.summary,
        "description": route.answer.__doc__,
        "operationId": route.path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": json_content(route.request_model)},
        "responses": {str(status): answer for status, answer in answers.items()},
    }
