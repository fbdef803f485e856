"""OpenTelemetry traces by OTLP over HTTP: a span per request and one per step. Needs the extra `tracing`."""

import time

from ladabert_serve.errors import StartError
from ladabert_serve.http.call import Call
from ladabert_serve.settings import Settings

HEADER_CHARACTERS = 512  # of a caller's trace headers, as the standard asks; the library reads longer ones for seconds


class Tracer:
    """Makes a request's spans all at its end, from the times that its steps left, so that the steps cost no more.

    The SDK's own variables (`OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, …) apply.
    """

    def __init__(self, endpoint: str) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(resource=Resource.create({"service.name": "ladabert"}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("ladabert")

    def record(self, call: Call, status: int) -> None:
        """Make the spans of one request, below the caller's span if it sent a `traceparent`; does not block."""
        epoch_s = time.time() - time.monotonic()

        def nanoseconds(moment_s: float) -> int:
            return int((epoch_s + moment_s) * 1e9)

        carrier = {name: call.header(name.encode()) for name in ("traceparent", "tracestate")}
        carrier = {name: value for name, value in carrier.items() if 0 < len(value) <= HEADER_CHARACTERS}
        root = self._tracer.start_span(
            f"POST {call.path}",
            context=self._propagator.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            start_time=nanoseconds(call.started_at),
            attributes={
                "http.request.method": "POST",
                "http.route": call.path,
                "http.response.status_code": status,
                "ladabert.model": call.model,
                "ladabert.request_id": call.request_id,
            },
        )
        if status >= 500:
            root.set_status(self._trace.StatusCode.ERROR)
        if call.tickets:
            below = self._trace.set_span_in_context(root)
            steps = [("validate", call.started_at, call.tickets[0].admitted_at), *call.steps()]
            for name, begin, end in steps:
                self._tracer.start_span(name, context=below, start_time=nanoseconds(begin)).end(nanoseconds(end))
        root.end(nanoseconds(call.started_at + call.elapsed_s))

    def stop(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def start_tracer(settings: Settings) -> Tracer | None:
    """Return what records requests, None when no endpoint is set; raises StartError without the extra."""
    if settings.trace_endpoint is None:
        return None
    try:
        return Tracer(settings.trace_endpoint)
    except ImportError as error:
        raise StartError(
            f"trace_endpoint is set and {error.name} is not installed: pip install 'ladabert[tracing]'"
        ) from error
