"""Claims about what stands between the network and the routes: origins, hosts, proxies, paths, ports, the page."""

import base64
import hashlib
import html.parser
import json
import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from ladabert_serve.cli import main
from ladabert_serve.http.gates import with_gates
from ladabert_serve.observability.logs import JsonFormatter
from ladabert_serve.settings import Settings
from tests.service.conftest import Server, serving
from tests.service.test_api_keys import KEY, LINES, bearer
from tests.service.test_classify import check_problem

ORIGIN = "https://app.example.com"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


def test_without_settings_nothing_stands_between() -> None:
    async def router(*_: Any) -> None: ...

    assert with_gates(router, Settings()) is router


# Origins.


def test_a_page_of_an_allowed_origin_may_call_and_one_of_another_may_not(models: Path) -> None:
    with serving(models, cors_origins=f"{ORIGIN}, http://localhost:3000", api_keys=LINES) as server:
        allowed = server.request("OPTIONS", "/classify", headers={"origin": ORIGIN, **PREFLIGHT})
        assert allowed.status_code == 200  # without a key: browsers send none here
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in allowed.headers
        refused = server.request("OPTIONS", "/classify", headers={"origin": "https://evil.example", **PREFLIGHT})
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
        for headers, status in ((bearer(KEY), 200), ({}, 401)):
            answer = server.classify({"inputs": "a"}, headers={"origin": ORIGIN, **headers})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert answer.headers["x-request-id"]
        check = server.get("/models", headers={"origin": ORIGIN})  # the page can read why
        assert (check.status_code, check.headers["access-control-allow-origin"]) == (401, ORIGIN)


def test_by_default_no_page_may_call(server: Server) -> None:
    answer = server.classify({"inputs": "a"}, headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert server.request("OPTIONS", "/classify", headers={"origin": ORIGIN, **PREFLIGHT}).status_code == 405


# Hosts.


@pytest.mark.parametrize("host", ["service", "SERVICE:80", "a.example.com", "b.a.example.com:8000"])
def test_an_allowed_host_is_answered(host: str, models: Path) -> None:
    with serving(models, allowed_hosts="service, *.example.com") as server:
        assert server.get("/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "example.com.evil.example", "servic", "", "[", "a b", "xexample.com"])
def test_another_host_is_400_but_for_health_and_metrics(host: str, models: Path) -> None:
    with serving(models, allowed_hosts="service,*.example.com") as server:
        for path in ("/models", "/docs", "/nowhere"):
            check_problem(server.get(path, headers={"host": host}), 400)
        check_problem(server.classify({"inputs": "a"}, headers={"host": host}), 400)
        assert server.get("/health/ready", headers={"host": host}).status_code == 200


# Proxies.


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        (None, "9.9.9.9", "127.0.0.1"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("127.0.0.0/8", "6.6.6.6, 9.9.9.9", "9.9.9.9"),  # what the caller itself claimed is not believed
        ("127.0.0.1,10.0.0.0/8", "6.6.6.6, 9.9.9.9, 10.1.2.3", "9.9.9.9"),
        ("10.0.0.0/8", "9.9.9.9", "127.0.0.1"),
    ],
)
def test_the_log_names_the_caller_that_a_trusted_proxy_names(
    trusted: str | None, forwarded: str | None, client: str, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    with (
        caplog.at_level(logging.INFO, "ladabert_serve.http.access_log"),
        serving(models, access_log=True, forwarded_allow_ips=trusted) as server,
    ):
        server.classify({"inputs": "a"}, headers=headers)
    (line,) = [json.loads(JsonFormatter().format(each)) for each in caplog.records if each.msg == "answered"]
    assert line["client"] == client


@pytest.mark.parametrize("path", ["/classify", "/api/v1/classify"])
def test_a_proxy_may_strip_the_root_path_or_pass_it_on(path: str, models: Path) -> None:
    with serving(models, root_path="/api/v1", allowed_hosts="nobody", api_keys=LINES) as server:
        assert server.get(path.replace("classify", "health/ready")).status_code == 200
    with serving(models, root_path="/api/v1", api_keys=LINES) as server:
        answer = server.request("POST", path, json={"inputs": "a"}, headers=bearer(KEY))
        assert answer.status_code == 200
        check_problem(server.request("POST", path, json={"inputs": "a"}), 401)
        assert server.get("/openapi.json").json()["servers"] == [{"url": "/api/v1"}]
        check_problem(server.get("/api/v1x/health/ready", headers=bearer(KEY)), 404)


# Ports.


OPERATORS_PATHS = ["/metrics", "/docs", "/docs/swagger-ui.css", "/openapi.json"]


def test_what_is_for_operators_leaves_the_main_port(models: Path) -> None:
    with serving(models, admin_port=9000, api_keys=LINES) as server:

        def status(port: int, path: str, method: str = "GET") -> int:
            return server.request(method, f"http://service:{port}{path}", headers=bearer(KEY)).status_code

        for path in OPERATORS_PATHS:
            assert (status(9000, path), status(8000, path)) == (200, 404), path
        for path in ("/models", "/models/alpha"):
            assert (status(9000, path), status(8000, path)) == (404, 200), path
        for path in ("/health/live", "/health/ready"):
            assert (status(9000, path), status(8000, path)) == (200, 200), path
        assert (status(9000, "/classify", "POST"), status(8000, "/classify", "POST")) == (404, 415)
        assert (status(9000, "/v2/repository/index", "POST"), status(8000, "/v2/repository/index", "POST")) == (
            403,
            404,
        )


# The page.


class References(html.parser.HTMLParser):
    """Collects what a page loads or links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "poster")]


def test_the_page_loads_nothing_from_elsewhere(server: Server) -> None:
    page = server.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    references = References()
    references.feed(page.text)
    assert len(references.found) == 3
    assert "//" not in re.sub(r"<!--.*?-->", "", page.text)
    types = {}
    for reference in references.found:
        answer = server.get(urljoin("/docs", reference))
        assert answer.status_code == 200, reference
        types[reference] = answer.headers["content-type"].partition(";")[0]
    assert [kind.rpartition("/")[2] for kind in types.values()] == ["css", "png", "javascript"]
    style = server.get("/docs/swagger-ui.css").text
    assert not re.findall(r"@import|url\((?!\s*[\"']?data:)", style)


def test_below_a_proxys_path_the_pages_references_stay_below_it(server: Server) -> None:
    references = References()
    references.feed(server.get("/docs").text)
    assert all(urljoin("/api/docs", reference).startswith("/api/docs/") for reference in references.found)


def test_the_page_runs_only_scripts_that_it_came_with(server: Server) -> None:
    page = server.get("/docs")
    policy = dict(entry.split(" ", 1) for entry in page.headers["content-security-policy"].split("; "))
    (inline,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert '"validatorUrl": null' in inline


@pytest.mark.parametrize("path", ["../main.py", "%2e%2e/main.py", "..%2fmain.py", "%00", "nothing", ""])
def test_below_the_page_there_are_its_files_and_nothing_else(path: str, server: Server) -> None:
    check_problem(server.get(f"/docs/{path}"), 404)


# Settings.


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--cors-origins", "app.example.com", "https://app.example.com"),
        ("--cors-origins", "https://app.example.com/", "without a path"),
        ("--cors-origins", "https://[", ""),
        ("--cors-origins", ",", "empty"),
        ("--allowed-hosts", "https://example.com", "example.com"),
        ("--allowed-hosts", "example.com:80", "without a port"),
        ("--allowed-hosts", "a.*.com", "*.example.com"),
        ("--forwarded-allow-ips", "proxy", "address"),
        ("--forwarded-allow-ips", "10.0.0.1/8", "network"),
        ("--root-path", "api", "/api"),
        ("--root-path", "/api/", "/api"),
        ("--uds-mode", "rw", "--uds-mode"),
        ("--admin-port", "-1", "--admin-port"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_how_it_is_written(
    option: str, value: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ladabert-serve: {option}: ")
    assert word in line
