"""What the routes say about themselves in /openapi.json beyond what FastAPI knows."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.errors import OUTCOMES, RequestError
from service.inference_route import InferenceRoute
from service.problem import MEDIA_TYPE
from service.schemas import Problem

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


def build_openapi(app: FastAPI, inference: Iterable[InferenceRoute]) -> dict[str, Any]:
    """Return the OpenAPI document: FastAPI's own for its routes, and these for the routes that it never sees."""
    routes = list(inference)
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for route in routes:
        schema["paths"][route.path] = {"post": _operation(route)}
    models = {(route.request_model, "validation") for route in routes}
    models |= {(route.response_model, "serialization") for route in routes}
    _, definitions = models_json_schema([*models, (Problem, "serialization")], ref_template=REFERENCE)  # type: ignore[list-item]
    schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
    return schema


def _operation(route: InferenceRoute) -> dict[str, Any]:
    def json_content(model: type[BaseModel]) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}

    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "OK", "content": json_content(route.response_model)},
        **problem_responses(route.errors),
    }
    return {
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.answer.__doc__,
        "operationId": route.path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": json_content(route.request_model)},
        "responses": {str(status): answer for status, answer in answers.items()},
    }
