"""What the routes say about themselves in /openapi.json beyond what FastAPI knows."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.errors import OUTCOMES, RequestError
from service.problem import MEDIA_TYPE
from service.schemas import ClassifyRequest, Problem

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


def request_body(model: str) -> dict[str, Any]:
    """Return the documentation of a JSON body that the route reads itself."""
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=model)}}}
    return {"requestBody": {"required": True, "content": content}}


def install_openapi(app: FastAPI) -> None:
    """Make /openapi.json hold the schemas that only `request_body` and `problem_responses` refer to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, definitions = models_json_schema(
                [(ClassifyRequest, "validation"), (Problem, "serialization")], ref_template=REFERENCE
            )
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(definitions["$defs"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
