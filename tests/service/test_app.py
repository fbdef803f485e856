"""Claims about the other routes and about what the service says of itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ladabert_serve.errors import OUTCOMES, RequestError, ServiceError
from tests.service.conftest import Server, serving
from tests.service.test_classify import check_problem
from tests.service.tiny_artefact import REPOSITORY


def test_models_are_listed_with_their_state(server: Server) -> None:
    body = server.get("/models").json()
    assert body["default"] == "alpha"
    assert [model["name"] for model in body["models"]] == ["alpha", "pairs", "topics"]
    assert {model["state"] for model in body["models"]} == {"ready"}


def test_one_model_shows_its_manifest(server: Server, models: Path) -> None:
    body = server.get("/models/pairs").json()
    assert body["manifest"] == json.loads((models / "pairs" / "manifest.json").read_text())
    assert (body["file"], body["precision"], body["provider"]) == ("model.onnx", "fp32", "cpu")


@pytest.mark.parametrize("name", ["nope", "%00", "%2e%2e%2fpairs", "a" * 5000, "%F0%9F%98%80"])
def test_an_unknown_model_is_404(server: Server, name: str) -> None:
    check_problem(server.get(f"/models/{name}"), 404)


def test_health_tells_live_and_ready(server: Server) -> None:
    assert server.get("/health/live").json() == {"status": "live"}
    assert server.get("/health/ready").json() == {"status": "ready"}


def test_an_unknown_route_is_a_404_problem(server: Server) -> None:
    check_problem(server.get("/nowhere"), 404)
    check_problem(server.request("POST", "/classify/"), 404)


@pytest.mark.parametrize("host", ["[", "a b", "x:y", ""])
def test_no_host_header_is_a_500(server: Server, host: str) -> None:
    check_problem(server.get("/nowhere", headers={"host": host}), 404)
    for path in ("/docs", "/openapi.json", "/models", "/health/live"):
        assert server.get(path, headers={"host": host}).status_code == 200


def test_a_wrong_method_is_a_405_problem_that_says_which_are_right(server: Server) -> None:
    response = server.get("/classify")
    check_problem(response, 405)
    assert response.headers["allow"] == "POST"


def test_a_bug_is_a_500_problem_with_the_request_id(models: Path) -> None:
    with serving(models) as server:
        server.app.state.services.registry.get = None  # any bug will do
        response = server.classify({"inputs": "a"}, headers={"x-request-id": "my-id"})
        problem = check_problem(response, 500)
        assert problem["request_id"] == "my-id"


def test_docs_are_served(server: Server) -> None:
    assert server.get("/docs").status_code == 200


def test_openapi_lists_every_status_that_classify_sends_and_no_other(server: Server) -> None:
    schema = server.get("/openapi.json").json()
    operation = schema["paths"]["/classify"]["post"]
    sent = {str(outcome.status) for outcome in OUTCOMES.values()} - {
        "499",
        "403",
    }  # 499 has no reader, and every key may classify
    assert set(operation["responses"]) == {"200", *sent}
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ClassifyRequest"
    }
    assert schema["components"]["schemas"]["ClassifyRequest"]["examples"]


def test_openapi_is_complete(server: Server) -> None:
    schema = server.get("/openapi.json").json()
    statuses = {path: set(each["get"]["responses"]) for path, each in schema["paths"].items() if "get" in each}
    statuses = {path: each for path, each in statuses.items() if not path.startswith("/v")}
    assert statuses == {
        "/models": {"200"},
        "/models/{name}": {"200", "404"},
        "/models/{name}/shadow": {"200", "403", "404"},
        "/health/live": {"200", "503"},
        "/health/ready": {"200", "503"},
        "/metrics": {"200", "503"},
    }
    text = json.dumps(schema)
    for name in schema["components"]["schemas"]:
        text = text.replace(f'"#/components/schemas/{name}"', '"resolved"')
    assert "#/components" not in text
    assert "$defs" not in text


def test_every_request_error_has_an_outcome() -> None:
    assert set(RequestError.__subclasses__()) == set(OUTCOMES)
    assert all(not outcome.retry or outcome.status in (429, 503) for outcome in OUTCOMES.values())
    assert all(outcome.retry or outcome.status not in (429, 503) for outcome in OUTCOMES.values())


def test_every_error_stands_in_the_tree_at_the_top_of_the_module() -> None:
    import ladabert_serve.errors as module

    def names(error: type[Exception]) -> list[str]:
        return [error.__name__, *(name for child in error.__subclasses__() for name in names(child))]

    for name in names(ServiceError):
        assert f"{name} " in (module.__doc__ or "").replace("\n", " ")


def test_importing_the_service_loads_neither_torch_nor_transformers() -> None:
    script = (
        "import sys, ladabert_serve.app, ladabert_serve.cli, ladabert_serve.server.workers\n"
        "print([name for name in ('torch', 'transformers', 'ladabert_compress') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_alone_imports_nothing_else() -> None:
    script = "import sys, service; print([name for name in ('fastapi', 'onnxruntime') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
