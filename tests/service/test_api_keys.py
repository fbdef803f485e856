"""Claims about API keys: their lines, their file, who is let in, and how often."""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.cli import main
from ladabert_serve.errors import ForbiddenError, RateLimitedError, StartError, UnauthenticatedError
from ladabert_serve.http import api_keys
from ladabert_serve.http.api_keys import LONGEST_KEY, ApiKey, KeyRing, format_line, hash_key, new_key, parse_keys
from ladabert_serve.http.gates import OPEN_PATHS
from ladabert_serve.http.key_file import KeyFile
from ladabert_serve.observability.logs import JsonFormatter
from ladabert_serve.settings import Settings
from tests.service.conftest import serving
from tests.service.gated import metric
from tests.service.test_classify import check_problem

KEY, OPERATORS, UNKNOWN = "k" * 43, "o" * 43, "u" * 43
LINES = "\n".join((format_line("team", KEY, ["classify"]), format_line("operator", OPERATORS, ["admin"])))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


# Lines.


def test_a_line_says_name_hash_scopes_and_limit() -> None:
    digest = hash_key(KEY.encode()).hex()
    lines = f"# who\n\nteam {digest} scopes=classify,admin requests_per_second=2.5  # and why\n"
    assert parse_keys(lines, "file") == [
        ApiKey("team", hash_key(KEY.encode()), frozenset({"classify", "admin"}), 2.5, burst=3)
    ]


def test_a_variable_holds_several_lines() -> None:
    assert [key.name for key in parse_keys(LINES.replace("\n", "; "), "variable")] == ["team", "operator"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "no key"),
        ("# nothing", "no key"),
        ("team", "SHA-256"),
        (f"team {KEY}", "SHA-256"),
        (f"team {'A' * 64}", "SHA-256"),
        (f"te\x00am {'a' * 64}", "name"),
        (f"{'n' * 65} {'a' * 64}", "name"),
        (f"team {'a' * 64} scopes=", "scopes"),
        (f"team {'a' * 64} scopes=root", "scopes"),
        (f"team {'a' * 64} scopes=admin scopes=admin", "each once"),
        (f"team {'a' * 64} colour=red", "scopes="),
        (f"team {'a' * 64} burst=3", "requests_per_second="),
        (f"team {'a' * 64} requests_per_second=0", "above 0"),
        (f"team {'a' * 64} requests_per_second=nan", "above 0"),
        (f"team {'a' * 64} requests_per_second=many", "above 0"),
        (f"team {'a' * 64} requests_per_second=1 burst=inf", "above 0"),
    ],
    ids=str,
)
def test_a_wrong_line_is_refused_with_its_number_and_without_its_secret(line: str, word: str) -> None:
    with pytest.raises(StartError, match=word) as refused:
        parse_keys(line, "the file")
    assert "the file" in str(refused.value)
    assert KEY not in str(refused.value)


@given(st.text())
def test_no_file_of_keys_does_anything_but_parse_or_say_what_is_wrong(text: str) -> None:
    with pytest.raises(StartError):
        parse_keys(f"{text}\nteam", "file")


def test_two_keys_with_one_name_or_one_hash_are_refused() -> None:
    for line in (format_line("team", UNKNOWN, ["classify"]), format_line("other", KEY, ["classify"])):
        with pytest.raises(StartError, match="twice"):
            KeyRing(parse_keys(f"{LINES}\n{line}", "file"))


# Who is let in.


def test_a_key_is_found_in_either_header_and_admin_includes_classify() -> None:
    ring = KeyRing(parse_keys(LINES, "lines"))
    for headers in ({b"authorization": b"bEaReR " + KEY.encode()}, {b"x-api-key": KEY.encode()}):
        assert ring.authenticate(headers, "classify").name == "team"
        with pytest.raises(ForbiddenError):
            ring.authenticate(headers, "admin")
    both = {b"authorization": b"Bearer hf_of_somebody_else", b"x-api-key": OPERATORS.encode()}
    assert ring.authenticate(both, "classify").name == ring.authenticate(both, "admin").name == "operator"


@given(st.binary(max_size=2 * LONGEST_KEY), st.sampled_from([b"", b"Bearer ", b"Basic ", b"bearer  "]))
def test_no_other_header_is_let_in(value: bytes, scheme: bytes) -> None:
    ring = KeyRing(parse_keys(LINES, "lines"))
    for headers in ({b"authorization": scheme + value}, {b"x-api-key": value}, {}):
        with pytest.raises(UnauthenticatedError):
            ring.authenticate(headers, "classify")


def test_the_hash_of_a_key_is_no_key() -> None:
    with pytest.raises(UnauthenticatedError):
        KeyRing(parse_keys(LINES, "lines")).authenticate({b"x-api-key": hash_key(KEY.encode()).hex().encode()}, "admin")


def test_every_key_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def trace(module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)

        def traced(*values: Any, **options: Any) -> Any:
            steps.append(name)
            return real(*values, **options)

        monkeypatch.setattr(module, name, traced)

    ring = KeyRing(parse_keys(LINES, "lines"))
    trace(api_keys, "hash_key")
    trace(hashlib, "blake2s")
    found = []
    for key in (UNKNOWN, KEY[:-1] + "x", "x" + KEY[1:]):
        steps.clear()
        with pytest.raises(UnauthenticatedError):
            ring.authenticate({b"x-api-key": key.encode()}, "classify")
        found.append(list(steps))
    assert found == [["hash_key", "blake2s"]] * 3  # whatever a guess shares with a key


def test_with_keys_only_health_metrics_and_the_documentation_are_open(models: Path) -> None:
    with serving(models, api_keys=LINES) as server:
        for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
            assert server.get(path).status_code == 200, path
        for path in ("/models", "/models/alpha", "/models/nope", "/nowhere", "/metrics/x", "/v2/models/alpha"):
            response = server.get(path)
            check_problem(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
        assert server.get("/models", headers=bearer(KEY)).status_code == 200
        check_problem(server.get("/nowhere", headers=bearer(KEY)), 404)


def test_classify_asks_for_a_key_before_it_reads_the_body(models: Path) -> None:
    with serving(models, api_keys=LINES) as server:
        response = server.classify({"inputs": "a"})
        assert check_problem(response, 401)["type"] == "urn:ladabert:problem:unauthenticated"
        assert server.classify({"inputs": "a"}, headers={"x-api-key": OPERATORS}).status_code == 200
        assert server.classify({"inputs": "a"}, headers=bearer(KEY)).status_code == 200
        check_problem(server.post_raw(b"not JSON"), 401)
        assert 'route="/classify",status="401"} 2.0' in server.get("/metrics").text


def test_without_keys_nothing_asks_for_one_and_there_is_no_repository(models: Path) -> None:
    with serving(models) as server:
        assert server.classify({"inputs": "a"}, headers=bearer(UNKNOWN)).status_code == 200
        assert server.get("/models").status_code == 200
        check_problem(server.request("POST", "/v2/repository/index"), 404)


def test_the_repository_needs_an_admin_key_and_does_not_exist_where_there_is_none(models: Path) -> None:
    with serving(models, api_keys=LINES) as server:
        check_problem(server.request("POST", "/v2/repository/index"), 401)
        check_problem(server.request("POST", "/v2/repository/index", headers=bearer(KEY)), 403)
        assert server.request("POST", "/v2/repository/index", headers=bearer(OPERATORS)).status_code not in (401, 403)
    with serving(models, api_keys=format_line("team", KEY, ["classify"])) as server:
        for headers in ({}, bearer(KEY)):
            check_problem(server.request("POST", "/v2/repository/index", headers=headers), 404)


def test_the_document_says_where_a_key_is_needed(models: Path) -> None:
    with serving(models, api_keys=LINES) as server:
        schema = server.get("/openapi.json").json()
    schemes = set(schema["components"]["securitySchemes"])
    operations = [(path, *each) for path, methods in schema["paths"].items() for each in methods.items()]
    asking = [operation for _, _, operation in operations if operation.get("security")]
    assert all({name for entry in each["security"] for name in entry} == schemes for each in asking)
    assert all("401" in each["responses"] for each in asking)
    open_operations = {(path, method) for path, method, operation in operations if operation not in asking}
    assert open_operations == {("/", "get"), *((path, "get") for path in OPEN_PATHS)}


def test_the_access_log_names_the_key_and_never_shows_it(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        serving(models, api_keys=LINES, access_log=True) as server,
    ):
        server.classify({"inputs": "a"}, headers=bearer(KEY))
        server.classify({"inputs": "a"}, headers=bearer(UNKNOWN))
    written = [JsonFormatter().format(record) for record in caplog.records]
    lines = [json.loads(line) for line in written if '"answered"' in line]
    assert [(line.get("key"), line["status"]) for line in lines] == [("team", 200), (None, 401)]
    assert not any(key in line for line in written for key in (KEY, UNKNOWN, hash_key(KEY.encode()).hex()))


# How often.


def test_a_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    now = [0.0]
    line = format_line("team", KEY, ["classify"]) + " requests_per_second=2 burst=3"
    ring = KeyRing(parse_keys(line, "line"), clock=lambda: now[0])
    (key,) = parse_keys(line, "line")
    for _ in range(3):
        ring.spend(key)
    with pytest.raises(RateLimitedError):
        ring.spend(key)
    now[0] = 0.5
    ring.replace(parse_keys(f"{line}\n{format_line('new', UNKNOWN, ['classify'])}", "lines"))  # keeps what was spent
    ring.spend(key)
    with pytest.raises(RateLimitedError):
        ring.spend(key)


@given(
    rate=st.floats(0.01, 1000),
    burst=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 10), max_size=200),
)
def test_who_comes_again_when_told_is_let_in_and_never_more_than_the_limit(
    rate: float, burst: int, pauses: list[float]
) -> None:
    now = [0.0]
    key = ApiKey("team", b"", requests_per_s=rate, burst=burst)
    ring = KeyRing([key], clock=lambda: now[0])
    for passed, pause in enumerate(pauses, start=1):
        now[0] += pause
        try:
            ring.spend(key)
        except RateLimitedError as error:
            now[0] += error.retry_after_s
            ring.spend(key)
        assert passed <= burst + now[0] * rate + 1e-6


def test_workers_share_a_limit() -> None:
    key = ApiKey("team", b"", requests_per_s=4, burst=8)
    ring = KeyRing([key], workers=4, clock=lambda: 0.0)
    for _ in range(2):
        ring.spend(key)
    with pytest.raises(RateLimitedError):
        ring.spend(key)


def test_over_its_limit_a_key_gets_429_with_retry_after_and_others_do_not(models: Path) -> None:
    limited = LINES.replace("scopes=classify", "scopes=classify requests_per_second=0.1")
    with serving(models, api_keys=limited) as server:
        assert server.classify({"inputs": "a"}, headers=bearer(KEY)).status_code == 200
        response = server.classify({"inputs": "a"}, headers=bearer(KEY))
        assert check_problem(response, 429)["type"] == "urn:ladabert:problem:rate-limited"
        assert 9 <= int(response.headers["retry-after"]) <= 10
        assert server.classify({"inputs": "a"}, headers=bearer(OPERATORS)).status_code == 200
        assert metric(server, 'ladabert_rejected_total{model="unknown",reason="rate_limited"}') == 1


# The file.


def test_a_changed_file_is_read_again_and_a_broken_one_leaves_the_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text(LINES)
    file = KeyFile(Settings(api_keys_file=path))

    def lets_in(key: str) -> bool:
        try:
            file.ring.authenticate({b"x-api-key": key.encode()}, "classify")
        except UnauthenticatedError:
            return False
        return True

    assert (lets_in(KEY), lets_in(UNKNOWN)) == (True, False)
    for broken in ("team", "", "\xff", f"{LINES}\n{LINES}"):
        replace(path, broken.encode("latin-1"))
        caplog.clear()
        file.reload()
        file.reload()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert lets_in(KEY)
    path.unlink()
    file.reload()
    assert lets_in(KEY)
    replace(path, format_line("new", UNKNOWN, ["classify"]).encode())
    file.reload()
    assert (lets_in(KEY), lets_in(UNKNOWN)) == (False, True)


def replace(path: Path, data: bytes) -> None:
    """Put a new file in the place of another, as a deployment does."""
    other = path.with_suffix(".new")
    other.write_bytes(data)
    other.replace(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "huge", "no text"])
def test_a_file_that_cannot_be_used_is_refused_at_the_start(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.write_bytes(b"#" * (1 << 21))
    elif kind == "no text":
        path.write_bytes(b"\xff")
    with pytest.raises(StartError, match=str(path)):
        KeyFile(Settings(api_keys_file=path))


def test_a_running_server_reads_a_changed_file(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladabert_serve.http.key_file.LOOK_S", 0.01)
    path = tmp_path / "keys"
    path.write_text(LINES)
    with serving(models, api_keys_file=path) as server:
        assert server.classify({"inputs": "a"}, headers=bearer(UNKNOWN)).status_code == 401
        replace(path, format_line("new", UNKNOWN, ["classify"]).encode())
        answers: list[httpx.Response] = []
        while not answers or answers[-1].status_code == 401:
            answers.append(server.classify({"inputs": "a"}, headers=bearer(UNKNOWN)))
            assert len(answers) < 10_000
        assert answers[-1].status_code == 200
        assert server.classify({"inputs": "a"}, headers=bearer(KEY)).status_code == 401


# The command.


def test_a_new_key_is_let_in_by_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--name", "team", "--scope", "admin"]) == 0
    told = capsys.readouterr()
    key = told.err.splitlines()[0].rpartition(" ")[2]
    ring = KeyRing(parse_keys(told.out, "output"))
    assert ring.authenticate({b"authorization": f"Bearer {key}".encode()}, "admin").name == "team"
    assert key not in told.out
    assert new_key() != new_key()


def test_a_key_from_standard_input_is_hashed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(KEY + "\n"))
    assert main(["keys", "hash", "--name", "team"]) == 0
    assert capsys.readouterr().out == LINES.splitlines()[0] + "\n"


@pytest.mark.parametrize("key", ["", "short", "with space " * 5, "ü" * 40, "k" * (LONGEST_KEY + 1)])
def test_a_key_that_can_be_guessed_or_not_sent_is_refused(
    key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(key))
    assert main(["keys", "hash", "--name", "team"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
