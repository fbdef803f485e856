"""GET /docs: Swagger UI, from files that came with the installation; the page needs no internet."""

import base64
import hashlib
import re
from collections.abc import Callable
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")


def add_docs(api: FastAPI) -> None:
    """Serve the page, and its script, style sheet and icon below it."""
    page = _page()

    @api.get("/docs", include_in_schema=False)
    async def docs(_: Request) -> Response:
        return page

    for name in FILES:
        api.add_route(f"/docs/{name}", _serve(name), include_in_schema=False)


def _serve(name: str) -> Callable[[Request], Response]:
    """Return what answers with one of the page's files."""
    path = str(files("fastapi_swagger") / "resources" / name)
    return lambda _: FileResponse(path)


def _page() -> HTMLResponse:
    """Return the page; its paths are relative, so that it works below any path of a proxy."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="LadaBERT",
        swagger_js_url=f"docs/{FILES[0]}",
        swagger_css_url=f"docs/{FILES[1]}",
        swagger_favicon_url=f"docs/{FILES[2]}",
        swagger_ui_parameters={"validatorUrl": None},  # else the document would be sent to a server of Swagger's
    )
    page.headers["content-security-policy"] = _policy(bytes(page.body).decode())
    return page


def _policy(html: str) -> str:
    """Return what a browser may load for the page: this server's files, and the page's own script by its hash."""
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'sha256-{script_hash}'",
            "style-src 'self' 'unsafe-inline'",  # Swagger UI sets style attributes
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
