"""What the routes say about themselves in /openapi.json beyond what FastAPI knows."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ladabert_serve.errors import (
    OUTCOMES,
    CallerLeftError,
    ForbiddenError,
    HeadersTooLargeError,
    HostNotAllowedError,
    MalformedRequestError,
    NotLiveError,
    RequestError,
    TooManyConnectionsError,
    UnauthenticatedError,
    UnknownModelError,
    UnknownVersionError,
)
from ladabert_serve.http.gates import OPEN_PATHS, PLAYGROUND_PATH
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
BEFORE_THE_ROUTE = (  # problems in any dialect
    MalformedRequestError,
    HeadersTooLargeError,
    HostNotAllowedError,
    TooManyConnectionsError,
)
BINARY = "application/octet-stream"
REFERENCE = "#/components/schemas/{model}"
PARAMETER = re.compile(r"\{(\w+)\}")


def problem_responses(
    errors: Iterable[type[RequestError]],
    statuses: Mapping[type[RequestError], int] | None = None,
    model: type[BaseModel] = Problem,
) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of these errors, by status; a dialect has other statuses and a model of its own."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        outcome = OUTCOMES[error]
        text = (error.__doc__ or "").splitlines()[0]
        response = responses.setdefault((statuses or {}).get(error, outcome.status), {"description": "", "content": {}})
        response["description"] = f"{response['description']} {text}".strip()
        own = model is not Problem and error not in BEFORE_THE_ROUTE
        response["content"] |= json_content(model) if own else PROBLEM
        if own and error is UnknownModelError:  # a path with a slash in the name is no route
            response["content"] |= PROBLEM
        if outcome.retry:
            schema = {"schema": {"type": "integer"}, "description": "Seconds."}
            response["headers"] = {"Retry-After": schema}
    return responses


def json_content(model: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    """Return the documentation of a body."""
    return {media_type: {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}


PROBLEM = json_content(Problem, MEDIA_TYPE)


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
        schema["paths"].setdefault(route.path, {})["post"] = _operation(route)
        models |= {(route.request_model, "validation"), (route.response_model, "serialization")}
        models.add((route.error_model, "serialization"))
    _, definitions = models_json_schema([*models, (Problem, "serialization")], ref_template=REFERENCE)  # type: ignore[list-item]
    schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])


def _add_keys(schema: dict[str, Any]) -> None:
    """Let every operation but the open ones ask for a key, and answer 401 without."""
    schema["components"]["securitySchemes"] = SECURITY_SCHEMES
    closed = [
        operation
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        if path not in OPEN_PATHS and (path, method) != (PLAYGROUND_PATH, "get")
    ]
    for operation in closed:
        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
        operation["responses"].setdefault("401", problem_responses([UnauthenticatedError])[401])


def _operation(route: InferenceRoute) -> dict[str, Any]:
    names = PARAMETER.findall(route.path)
    errors = [error for error in INFERENCE_ERRORS if error is not UnknownVersionError or "version" in names]
    binary = {BINARY: {"schema": {"type": "string", "format": "binary"}}} if route.binary else {}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "OK", "content": json_content(route.response_model) | binary},
        **problem_responses(errors, route.statuses, route.error_model),
    }
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return {
        "tags": ["inference"],
        "summary": route.summary,
        "description": route.answer.__doc__,
        "operationId": re.sub(r"\W+", "_", route.path).strip("_"),
        **({"parameters": parameters} if parameters else {}),
        "requestBody": {"required": True, "content": json_content(route.request_model) | binary},
        "responses": {str(status): answer for status, answer in answers.items()},
    }
