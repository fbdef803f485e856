"""Gives every request an id and every answer that id; turns a bug into a 500 that carries it."""

import logging

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.call import request_id_of
from service.problem import unexpected_problem

logger = logging.getLogger(__name__)


class RequestIdMiddleware:
    """Puts the request's id into its state and on its answer: the caller's id if it is sane."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; a bug is logged and answered 500 if nothing was sent before."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(dict(scope["headers"]))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            logger.exception("a bug in request %s", request_id)
            if started:
                raise
            await unexpected_problem(request_id)(scope, receive, send_with_id)
