"""Every setting of the server in one frozen object; read from the environment as `LADABERT_<NAME>`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "LADABERT_"
OPENVINO_FIXED_TOKENS = 64
LONE_TEXT_THREADS = 4  # more gain little on one text

Provider = Literal["auto", "cpu", "cuda", "openvino"]
Precision = Literal["auto", "fp32", "int8", "fp16"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class Settings(BaseSettings):
    """What the operator decides; arguments win over the environment, which wins over the defaults."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    models: Path = Field(
        default=Path("models"), description="Folder with one sub-folder per artefact; links are refused."
    )
    default_model: str | None = Field(
        default=None,
        description="Model that answers a request which names none. Unset: the one with the name or alias `default`, "
        "else the first by name, texts before pairs.",
    )
    precision: Precision = Field(
        default="auto",
        description="Graph to load: fp32, int8, fp16, or auto: the manifest's default_file, but fp16 or else fp32 on "
        "CUDA and fp32 with OpenVINO, where the artefact has it and the provider was named.",
    )
    provider: Provider = Field(
        default="auto",
        description="Where to compute: cpu, cuda or openvino (each fails at start where there is none; openvino needs "
        "the extra of that name) or auto (cuda or cpu).",
    )
    openvino_fixed_tokens: int = Field(
        default=OPENVINO_FIXED_TOKENS,
        ge=0,
        description="With OpenVINO, single texts of up to this many tokens run in a graph compiled for their length "
        "alone, an fp32 one: half the time, for about 0.2 s and 30 MB for each eight tokens. 0: none.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    workers: int = Field(
        default=1, ge=1, le=256, description="Worker processes, which share the port and one /metrics."
    )
    runners: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that run the graph, per worker and model. Unset: on CPU the cgroup's cores "
        "divided by the workers, on CUDA one.",
    )
    lone_text_threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that share an fp32 graph's run of a single text while no other runs, on the CPU; more "
        "than one hold the weights twice. Unset: as many as there are runners, at most 4.",
    )
    max_batch_size: int | None = Field(
        default=None, ge=1, description="Texts in one batch at most. Unset: 32 on CPU, 256 on CUDA."
    )
    max_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens in one batch at most, padding included; a longer text runs alone. "
        "Unset: 256 on CPU, 32768 on CUDA.",
    )
    max_batch_padding: float = Field(
        default=0.1, ge=0, lt=1, description="Share of a batch's tokens that may be padding, between 0 and 1."
    )
    fair_window_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens by which a batch may run ahead of the fair order to find texts of its length: more fills "
        "batches better, less keeps a long list from holding up other callers. Unset: 64 on CPU, 32768 on CUDA.",
    )
    max_queue_requests: int = Field(
        default=1024, ge=1, description="Requests that may wait, per worker and model; more are answered 429."
    )
    max_queue_tokens: int = Field(
        default=262144,
        ge=1,
        description="Tokens that may wait, per worker and model; more are answered 429. "
        "A request over it is taken only when nothing else waits.",
    )
    max_queue_ms: int = Field(
        default=1000,
        ge=1,
        le=3600000,
        description="Time that a request may expect to wait in the queue, as fast as the last batches went; more is "
        "answered 429.",
    )
    max_run_ms: int = Field(
        default=30000,
        ge=1,
        le=3600000,
        description="A run of the graph that takes longer hangs: its callers get 503 and its runner is replaced.",
    )
    max_body_bytes: int = Field(default=2097152, ge=1, description="Request body at most, in bytes; else 413.")
    max_inputs: int = Field(default=512, ge=1, description="Inputs in one request at most; else 413.")
    max_text_bytes: int = Field(default=65536, ge=1, description="One text at most, in UTF-8 bytes; else 413.")
    max_bytes_in_flight: int = Field(
        default=67108864,
        ge=1,
        description="Bytes of the bodies of all requests that are being answered, per worker; more are answered 429. "
        "The last quarter is kept for bodies of up to 16 KiB.",
    )
    max_connections: int = Field(
        default=4096,
        ge=1,
        description="Connections, per worker; a new one takes the place of the longest idle one, or is answered 503 "
        "when all are busy.",
    )
    max_header_bytes: int = Field(
        default=32768, ge=1024, description="A request's headers and trailers at most, in bytes; else 431."
    )
    default_timeout_ms: int = Field(
        default=30000,
        ge=1,
        le=3600000,
        description="Deadline of a request that sets no timeout_ms, and of receiving a body; else 504.",
    )
    header_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Time for a connection to send a request's headers; then it is closed."
    )
    keep_alive_s: float = Field(
        default=75.0,
        gt=0,
        le=3600,
        description="Time for which a connection may be idle after an answer; longer than a load balancer's usual 60, "
        "so that it never uses a closed one.",
    )
    write_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Time in which a caller has to take at least some of an answer that waits to be sent; then its "
        "connection is closed.",
    )
    grace_period_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="After SIGTERM, seconds until the process has ended; what was admitted and is not done a second "
        "before (in a period under two seconds: at half of it) is answered 503.",
    )
    log_level: LogLevel = Field(default="info", description="Least severe log line that is written.")
    log_format: LogFormat = Field(default="text", description="Log lines as text or as one JSON object each.")
    access_log: bool = Field(
        default=False, description="Write one log line per request: its id, status and the time of each step."
    )
    log_texts: bool = Field(default=False, description="Write the texts of a request into its log line, too.")
    trace_endpoint: str | None = Field(
        default=None,
        description="OTLP/HTTP address for OpenTelemetry traces, as in http://collector:4318/v1/traces (needs the "
        "extra tracing). Unset: no traces.",
    )
