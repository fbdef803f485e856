"""Claims about the playground as the server gives it; test_playground_in_browser.py uses it."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from urllib.parse import urljoin

import pytest

from ladabert_serve.cli import main
from ladabert_serve.routes.playground import FOLDER, MEDIA_TYPES, PAGE
from tests.service.conftest import Server, serving
from tests.service.test_api_keys import KEY, LINES, bearer
from tests.service.test_classify import check_problem
from tests.service.test_gates import References
from tests.service.tiny_artefact import REPOSITORY

IMPORT = re.compile(r'from "\./([\w.]+)"')
SCRIPTS = [name for name in MEDIA_TYPES if name.endswith(".js")]


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def test_the_root_is_the_page_and_still_takes_what_clients_post(server: Server) -> None:
    page = server.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == read(PAGE)
    assert server.request("HEAD", "/").status_code == 200
    assert server.request("POST", "/", json={"inputs": "a good film"}).status_code == 200
    check_problem(server.request("PUT", "/"), 405)


def test_every_file_of_the_page_is_served_with_its_type_and_no_other_is(server: Server) -> None:
    assert {each.name for each in FOLDER.iterdir()} == {PAGE, *MEDIA_TYPES}
    for name, media_type in MEDIA_TYPES.items():
        answer = server.get(f"/playground/{name}")
        assert answer.headers["content-type"].partition(";")[0] == media_type
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.text == read(name)
    for path in (PAGE, "", "../routes/playground.py", "%2e%2e/app.py", "nothing.js"):
        check_problem(server.get(f"/playground/{path}"), 404)


def test_the_page_and_its_scripts_ask_for_these_files_only(server: Server) -> None:
    references = References()
    references.feed(server.get("/").text)
    imported = {f"playground/{name}" for script in SCRIPTS for name in IMPORT.findall(read(script))}
    loaded = {f"playground/{name}" for name in MEDIA_TYPES}
    assert {*references.found, *imported} == loaded
    for name in (PAGE, *SCRIPTS, "playground.css"):
        assert not re.findall(r"https?:|url\(|@import", read(name)), name


def test_the_policy_allows_neither_inline_code_nor_other_servers(server: Server) -> None:
    page = server.get("/")
    policy = dict(entry.split(" ", 1) for entry in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert {value for name, value in policy.items() if name.endswith("-src")} == {"'none'", "'self'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert not re.findall(r"<style|<script>|\sstyle=|\son\w+=", page.text)


def test_a_setting_closes_the_page(models: Path) -> None:
    with serving(models, playground=False) as server:
        check_problem(server.get("/"), 405)
        check_problem(server.get("/playground/playground.js"), 404)
        assert "get" not in server.get("/openapi.json").json()["paths"]["/"]
        assert server.request("POST", "/", json={"inputs": "a good film"}).status_code == 200


def test_the_page_opens_without_a_key_and_what_it_asks_does_not(models: Path) -> None:
    with serving(models, api_keys=LINES) as server:
        assert server.get("/").status_code == 200
        assert server.get("/playground/playground.js").status_code == 200
        operations = server.get("/openapi.json").json()["paths"]["/"]
        assert ("security" in operations["get"], "security" in operations["post"]) == (False, True)
        for path in ("/models", "/playgrounds"):
            check_problem(server.get(path), 401)
        assert server.request("POST", "/", json={"inputs": "a"}).status_code == 401
        assert server.get("/models", headers=bearer(KEY)).status_code == 200


def test_the_page_is_on_the_main_port_and_under_allowed_names_only(models: Path) -> None:
    with serving(models, admin_port=9000, allowed_hosts="service") as server:
        for path in ("/", "/playground/playground.js"):
            assert server.get(f"http://service:8000{path}").status_code == 200
            check_problem(server.get(f"http://service:9000{path}"), 404)
            check_problem(server.get(path, headers={"host": "evil.example"}), 400)


@pytest.mark.parametrize("path", ["/api", "/api/"])
def test_below_a_proxys_path_the_pages_references_stay_below_it(path: str, models: Path) -> None:
    with serving(models, root_path="/api") as server:
        references = References()
        references.feed(server.get(path).text)
        base, *others = references.found
        assert base == "/api/"
        for reference in others:
            assert server.get(urljoin(base, reference)).status_code == 200


def test_the_installation_brings_the_pages_files() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["ladabert_serve"]
    package = Path(str(files("ladabert_serve")))
    packed = {path.name for pattern in patterns for path in package.glob(pattern)}
    assert {PAGE, *MEDIA_TYPES} <= packed


@pytest.mark.parametrize("option", ["--playground", "--no-playground"])
def test_the_command_has_the_setting(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert option in capsys.readouterr().out
