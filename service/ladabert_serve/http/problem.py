"""Errors as `application/problem+json` (RFC 9457)."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ladabert_serve.errors import OUTCOMES, InvalidRequestError, RequestError

MEDIA_TYPE = "application/problem+json"


def problem_response(error: RequestError, request_id: str) -> Response:
    """Return the answer to a request that failed on purpose."""
    outcome = OUTCOMES[type(error)]
    errors = [asdict(entry) for entry in error.errors] if isinstance(error, InvalidRequestError) else None
    return _response(outcome.status, outcome.title, error.detail, request_id, errors, error_headers(error))


def error_headers(error: RequestError) -> dict[str, str]:
    """Return the headers that belong to an error in whatever shape: when to try again, and how to authenticate."""
    outcome = OUTCOMES[type(error)]
    headers = {"retry-after": str(error.retry_after_s)} if outcome.retry else {}
    if outcome.challenge is not None:
        headers["www-authenticate"] = outcome.challenge
    return headers


def routing_problem(request: Request, error: HTTPException) -> Response:
    """Return the answer to an unknown route or a method that the route does not have."""
    phrase = HTTPStatus(error.status_code).phrase
    detail = f"{request.method} {request.scope['path'][:200]}: {error.detail}"
    return _response(error.status_code, phrase, detail, request.state.request_id, headers=error.headers)


def unexpected_problem(request_id: str) -> Response:
    """Return the answer to a request that hit a bug."""
    return _response(500, "Internal error", "a bug in the server; the log has the cause", request_id)


def _response(
    status: int,
    title: str,
    detail: str,
    request_id: str,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": f"urn:ladabert:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    if errors is not None:
        body["errors"] = errors
    # ASCII, because a detail may quote a caller's unpaired surrogate, which UTF-8 cannot hold.
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)
