"""What a request passes on its way to a route, where a setting asks for it; without these settings nothing is there."""

import re

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ladabert_serve.errors import HostNotAllowedError, RequestError
from ladabert_serve.http.inference_route import Services
from ladabert_serve.http.problem import problem_response, routing_problem
from ladabert_serve.settings import Settings, split_list

HEALTH_PATHS = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
OPEN_PATHS = HEALTH_PATHS | {"/metrics"}  # of machines that have no key, and know the server by its address
REPOSITORY_PATH = "/v2/repository"
DOCUMENT_PATHS = ("/docs", "/openapi.json")  # the same for everybody, and public anyway
CORS_HEADERS = ("Authorization", "X-API-Key", "X-Request-ID")
SHADOW_PATH = re.compile(r"/models/[^/]+/shadow")  # may show texts of any caller
CORS_EXPOSED_HEADERS = ("X-Request-ID", "Retry-After")


def is_below(path: str, *parents: str) -> bool:
    """Return whether a path is one of the others or below it."""
    return any(path == parent or path.startswith(parent + "/") for parent in parents)


class KeyGate:
    """Asks for an API key before the routes that FastAPI serves; an inference route asks itself.

    The model repository and what a shadow found need the scope `admin`; the repository does not exist where no key
    has it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403 or 404."""
        services: Services = scope["app"].state.services
        keys = services.keys
        path = scope["path"]
        is_repository = is_below(path, REPOSITORY_PATH)
        if is_repository and (keys is None or not keys.has_admin):
            await _not_found(scope)(scope, receive, send)
            return
        if keys is not None and path not in OPEN_PATHS and not is_below(path, *DOCUMENT_PATHS):
            try:
                is_admin = is_repository or SHADOW_PATH.fullmatch(path)
                keys.authenticate(dict(scope["headers"]), "admin" if is_admin else "classify")
            except RequestError as error:
                await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
                return
        await self.app(scope, receive, send)


class PortGate:
    """Keeps what is for operators on the second port, and everything else but health off it."""

    def __init__(self, app: ASGIApp, admin_port: int) -> None:
        self.app = app
        self._admin_port = admin_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 404."""
        path = scope["path"]
        is_operators = is_below(path, "/metrics", REPOSITORY_PATH, *DOCUMENT_PATHS) or bool(SHADOW_PATH.fullmatch(path))
        is_admin_port = scope["server"] is not None and scope["server"][1] == self._admin_port
        if path in HEALTH_PATHS or is_operators == is_admin_port:
            await self.app(scope, receive, send)
        else:
            await _not_found(scope)(scope, receive, send)


class HostGate:
    """Answers under the allowed names only: a web page whose name leads here by a trick of its DNS gets nothing."""

    def __init__(self, app: ASGIApp, allowed_hosts: list[str]) -> None:
        self.app = app
        self._check = TrustedHostMiddleware(_pass, allowed_hosts, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400."""
        try:
            if scope["path"] not in OPEN_PATHS:
                # Older versions of Starlette tell letters of different case apart.
                headers = [(name, value.lower() if name == b"host" else value) for name, value in scope["headers"]]
                await self._check({**scope, "headers": headers}, receive, _refuse)
        except HostNotAllowedError as error:
            await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def _pass(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stand for an application: the host is allowed."""


async def _refuse(_message: Message) -> None:
    raise HostNotAllowedError


class RootPath:
    """Takes the path under which a proxy publishes the server off a request, if the proxy has not done so."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if is_below(scope["path"], self._root_path):
            scope["path"] = scope["path"].removeprefix(self._root_path) or "/"
        await self.app(scope, receive, send)


def with_gates(router: ASGIApp, settings: Settings) -> ASGIApp:
    """Return the router behind the gates that the settings ask for; the last one is passed first."""
    app = router
    if settings.admin_port is not None:
        app = PortGate(app, settings.admin_port)
    if settings.cors_origins is not None:
        app = CORSMiddleware(
            app,
            split_list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_EXPOSED_HEADERS,
        )
    if settings.allowed_hosts is not None:
        app = HostGate(app, split_list(settings.allowed_hosts))
    if settings.root_path is not None:
        app = RootPath(app, settings.root_path)
    if settings.forwarded_allow_ips is not None:
        app = ProxyHeadersMiddleware(app, split_list(settings.forwarded_allow_ips))  # type: ignore[arg-type,assignment]
    return app if app is router else _OnlyRequests(app, router)


class _OnlyRequests:
    """Keeps a server's start and end, which are no requests, from the gates."""

    def __init__(self, gates: ASGIApp, router: ASGIApp) -> None:
        self._gates = gates
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._gates if scope["type"] == "http" else self._router)(scope, receive, send)


def _not_found(scope: Scope) -> ASGIApp:
    return routing_problem(Request(scope), HTTPException(404))
