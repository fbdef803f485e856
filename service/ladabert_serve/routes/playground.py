"""GET /: the playground, a page for the browser that asks this server's own routes and loads nothing from elsewhere."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from starlette.responses import Response

from ladabert_serve.http.gates import PLAYGROUND_FILES, PLAYGROUND_PATH

FOLDER = files("ladabert_serve") / "playground"
PAGE = "index.html"
MEDIA_TYPES = {
    "playground.css": "text/css",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(("playground.js", "card.js", "gauges.js", "lines.js", "server.js"), "text/javascript"),
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # a text never becomes markup
    )
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # after an upgrade, page and scripts are of one version
}


def add_playground(api: FastAPI, root_path: str | None) -> None:
    """Serve the page, and its scripts, style sheet and icon below `/playground`."""
    page = _page(root_path)

    @api.head(PLAYGROUND_PATH, include_in_schema=False)
    @api.get(PLAYGROUND_PATH, summary="The playground, a page for the browser", response_class=HTMLResponse)
    async def playground(_: Request) -> Response:
        """Return the page, which tries the models and shows live figures."""
        return page

    for name, media_type in MEDIA_TYPES.items():
        _add_file(api, name, Response((FOLDER / name).read_bytes(), headers=HEADERS, media_type=media_type))


def _add_file(api: FastAPI, name: str, response: Response) -> None:
    async def serve(_: Request) -> Response:
        return response

    api.add_route(f"{PLAYGROUND_FILES}/{name}", serve, include_in_schema=False)


def _page(root_path: str | None) -> Response:
    """Return the page; its paths are relative, and a proxy's path may lack the slash that they would need."""
    html = (FOLDER / PAGE).read_text(encoding="utf-8")
    if root_path is not None:
        html = html.replace("<head>", f'<head>\n<base href="{root_path}/">')
    return HTMLResponse(html, headers={**HEADERS, "content-security-policy": POLICY})
