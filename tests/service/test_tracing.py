"""Claims about traces, with a real exporter and a collector on the loopback."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ladabert_serve.errors import StartError
from ladabert_serve.http.tracing import start_tracer
from ladabert_serve.settings import Settings
from tests.service.conftest import serving

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextlib.contextmanager
def collecting() -> Iterator[tuple[str, list[Any]]]:
    """Give a collector's address and the spans that it got."""
    spans: list[Any] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces", spans
        finally:
            server.shutdown()
            thread.join()


def test_each_step_of_a_request_is_a_span_below_the_callers(models: Path) -> None:
    with collecting() as (endpoint, spans):
        with serving(models, trace_endpoint=endpoint) as server:
            assert server.classify({"inputs": "a"}, headers={"traceparent": PARENT}).status_code == 200
        names = {span.name: span for span in spans}
        assert sorted(names) == ["POST /classify", "inference", "queue", "tokenize", "validate"]
        root = names.pop("POST /classify")
        assert root.trace_id.hex() == PARENT.split("-")[1]
        assert root.parent_span_id.hex() == PARENT.split("-")[2]
        for span in names.values():
            assert span.parent_span_id == root.span_id
            assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= root.end_time_unix_nano


def test_trace_headers_of_any_length_cost_nothing_and_only_short_ones_are_continued(models: Path) -> None:
    long = ",".join(f"{name}={'x' * 200}" for name in "abc")
    with collecting() as (endpoint, spans):
        with serving(models, trace_endpoint=endpoint) as server:
            for state in (long[:201], long, " " * 60_000):
                headers = {"traceparent": PARENT, "tracestate": state}
                assert server.classify({"inputs": []}, headers=headers).status_code == 422
            headers = {"traceparent": PARENT + " " * 60_000}
            assert server.classify({"inputs": []}, headers=headers).status_code == 422
        assert [span.trace_state for span in spans] == [long[:201], "", "", ""]
        assert [span.parent_span_id.hex() for span in spans] == [PARENT.split("-")[2]] * 3 + [""]


def test_a_refused_request_is_a_span_with_its_status(models: Path) -> None:
    with collecting() as (endpoint, spans):
        with serving(models, trace_endpoint=endpoint) as server:
            assert server.classify({"inputs": []}).status_code == 422
        (span,) = spans
        attributes = {entry.key: entry.value for entry in span.attributes}
        assert attributes["http.response.status_code"].int_value == 422
        assert not span.parent_span_id


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError, match=r"ladabert\[tracing\]"):
        start_tracer(Settings(trace_endpoint="http://127.0.0.1:1/v1/traces"))


def test_without_an_endpoint_nothing_is_traced() -> None:
    assert start_tracer(Settings()) is None
