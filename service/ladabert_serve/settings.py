"""Every setting of the server in one frozen object; read from the environment as `LADABERT_<NAME>`."""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "LADABERT_"
OPENVINO_FIXED_TOKENS = 64
LONE_TEXT_THREADS = 4  # more gain little on one text

Provider = Literal["auto", "cpu", "cuda", "openvino"]
Precision = Literal["auto", "fp32", "int8", "fp16"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]")


def split_list(text: str | None) -> list[str]:
    """Return the entries of a setting that is a list, with commas between them."""
    return [entry.strip() for entry in (text or "").split(",") if entry.strip()]


def _check_origin(entry: str) -> None:
    parts = urlsplit(entry)
    if entry != "*" and (
        not parts.netloc or parts.scheme not in ("http", "https") or entry != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ValueError(f"an origin is like https://app.example.com, without a path, or *; {entry[:100]!r} is not")


def _check_host_name(entry: str) -> None:
    if HOST_NAME.fullmatch(entry) is None:
        raise ValueError(f"a host is like example.com or *.example.com, without a port; {entry[:100]!r} is not")


def _check_network(entry: str) -> None:
    try:
        entry == "*" or ipaddress.ip_network(entry)
    except ValueError:
        raise ValueError(f"a proxy is an address, a network like 10.0.0.0/8, or *; {entry[:100]!r} is not") from None


def _check_root_path(text: str | None) -> str | None:
    if text is not None and re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text) is None:
        raise ValueError("a root path is like /api: it begins with a slash and does not end with one")
    return text


def _list_of(check: Callable[[str], None]) -> AfterValidator:
    """Return the validator of a list whose entries pass the check."""

    def validate(text: str | None) -> str | None:
        entries = split_list(text)
        if text is not None and not entries:
            raise ValueError("the list is empty")
        for entry in entries:
            check(entry)
        return text

    return AfterValidator(validate)


class Settings(BaseSettings):
    """What the operator decides; arguments win over the environment, which wins over the defaults."""

    model_config = SettingsConfigDict(
        protected_namespaces=(), env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    models: Path = Field(
        default=Path("models"),
        description="Folder with one sub-folder for each artefact; links are refused.",
    )
    default_model: str | None = Field(
        default=None,
        description="Model for requests that name none. Unset: the one with the name or alias `default`, else the "
        "first by name; models for single texts come before models for pairs.",
    )
    model_settings: Path | None = Field(
        default=None,
        description="TOML file with a table of settings for each model that needs its own; read again whenever a model "
        "is loaded.",
    )
    watch: bool = Field(
        default=False,
        description="Look at the models folder: load a new or replaced artefact, unload one that vanished.",
    )
    watch_interval_s: float = Field(
        default=2.0,
        gt=0,
        le=3600,
        description="Seconds between two looks at the models folder. An artefact that changes is loaded once it is the "
        "same in two looks.",
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="A model's share of the runners' time while other models are busy, relative to their weights; "
        "meant for the file of model_settings.",
    )
    precision: Precision = Field(
        default="auto",
        description="Graph to load: fp32, int8, fp16 or auto. Auto takes fp16, or else fp32, when the provider setting "
        "is cuda; fp32 when it is openvino; and the manifest's default_file otherwise or where those are missing.",
    )
    provider: Provider = Field(
        default="auto",
        description="Where to compute: cpu, cuda, openvino, or auto (cuda where there is one, else cpu). The server "
        "does not start when a named provider is missing. openvino needs the extra of that name.",
    )
    openvino_fixed_tokens: int = Field(
        default=OPENVINO_FIXED_TOKENS,
        ge=0,
        description="With OpenVINO and an fp32 graph: single texts of up to this many tokens run in a graph compiled "
        "for their length, in half the time. Each eight tokens cost about 0.2 s and 30 MB. 0: no such graphs.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    uds: Path | None = Field(
        default=None,
        description="Path of a Unix socket to listen on instead of host and port. It is removed at the end, and a "
        "socket that nobody listens on any more is replaced at the start.",
    )
    uds_mode: str = Field(
        default="660", pattern="^0?[0-7]{3}$", description="Permissions of the Unix socket, as chmod writes them."
    )
    admin_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="A second port for /metrics, /docs, /openapi.json, /v2/repository and /models/{name}/shadow, which "
        "then leave the main one; health answers on both. 0 picks a free one. Unset: no second port.",
    )
    admin_host: str = Field(default="127.0.0.1", description="Address of the second port.")
    playground: bool = Field(
        default=True,
        description="Serve the playground at GET /: a page that tries the models in a browser and shows live figures. "
        "The page asks for an API key where the routes do.",
    )
    root_path: Annotated[str | None, AfterValidator(_check_root_path)] = Field(
        default=None,
        description="Path under which a proxy publishes the server, as in /api. The proxy may pass it on or strip it. "
        "Unset: none.",
    )
    api_keys: str | None = Field(
        default=None,
        description="API keys, hashed, with `;` between them, as `ladabert-serve keys` writes them. Unset, with no "
        "file either: no key is asked for.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File with one hashed API key a line; read again when it changes. A new file that is broken leaves "
        "the keys as they were and writes one line into the log.",
    )
    cors_origins: Annotated[str | None, _list_of(_check_origin)] = Field(
        default=None,
        description="Origins whose web pages may call the server from a browser, with commas between, or *. "
        "Unset: none.",
    )
    allowed_hosts: Annotated[str | None, _list_of(_check_host_name)] = Field(
        default=None,
        description="Names that the Host header may have, with commas between, as in example.com or *.example.com; "
        "others get 400. Health and metrics answer under any name. Unset: every name.",
    )
    forwarded_allow_ips: Annotated[str | None, _list_of(_check_network)] = Field(
        default=None,
        description="Proxies, as addresses or networks with commas between, whose X-Forwarded-For names the caller in "
        "the access log; * trusts everybody, and is for Unix sockets. Unset: the header is not read.",
    )
    workers: int = Field(
        default=1, ge=1, le=256, description="Worker processes, which share the port and one /metrics."
    )
    runners: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that run the graphs, per worker; all models share them. Unset: on the CPU, the cores that "
        "the cgroup grants divided by the workers; one when every model is on CUDA, and beside others a model on CUDA "
        "has one of them at a time.",
    )
    lone_text_threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that together run a single text through an fp32 graph on the CPU while nothing else runs; "
        "more than one need a second copy of the weights. Unset: as many as there are runners, at most 4.",
    )
    max_batch_size: int | None = Field(
        default=None, ge=1, description="Most texts in one batch. Unset: 32 on CPU, 256 on CUDA."
    )
    max_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens in one batch, padding included; a longer text runs alone. "
        "Unset: 256 on CPU, 32768 on CUDA.",
    )
    max_batch_padding: float = Field(
        default=0.1, ge=0, lt=1, description="Share of a batch's tokens that may be padding, between 0 and 1."
    )
    fair_window_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens by which a batch may run ahead of the fair order to find texts of its length. More fills "
        "batches better; fewer keep a long list from holding up other callers. Unset: 64 on CPU, 32768 on CUDA.",
    )
    max_queue_requests: int = Field(
        default=1024, ge=1, description="Most requests that may wait, per worker and model; further ones get 429."
    )
    max_queue_tokens: int = Field(
        default=262144,
        ge=1,
        description="Most tokens that may wait, per worker and model; further requests get 429. "
        "A single request of more tokens is accepted only when nothing else waits.",
    )
    max_queue_ms: int = Field(
        default=1000,
        ge=1,
        le=3600000,
        description="Longest expected wait in the queue, estimated from the speed of the last batches; a request that "
        "would wait longer gets 429.",
    )
    max_run_ms: int = Field(
        default=30000,
        ge=1,
        le=3600000,
        description="Longest run of the graph. A longer one counts as hung: its callers get 503 and its runner is "
        "replaced.",
    )
    cache_mib: int = Field(
        default=0,
        ge=0,
        le=1048576,
        description="Memory in MiB, per worker and model, for the answers to inputs that come again. It holds keyed "
        "hashes and no text, but a caller can tell by the time whether an input was sent before. 0: no cache.",
    )
    cascade_overload: Literal["degrade", "refuse"] = Field(
        default="degrade",
        description="What a cascade does with a text that has to go on to a stage whose queue is full: degrade answers "
        "with the stage before and says so (`degraded`), refuse answers the whole request with 429.",
    )
    shadow_model: str | None = Field(
        default=None,
        description="Another served model, the shadow, which computes a share of the default model's texts as well, in "
        "idle time; the metrics say how far the two agree. Its labels have to be the same. The file of model_settings "
        "can name the shadows of other models. Unset: none.",
    )
    shadow_rate: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the texts that the shadow computes, too, as far as there is time.",
    )
    drift_window: int = Field(
        default=10000,
        ge=0,
        le=1000000,
        description="Last answers, per worker and model, that ladabert_drift compares with the evaluation's rows. "
        "0: no comparison.",
    )
    max_body_bytes: int = Field(
        default=2097152, ge=1, description="Largest request body, in bytes; a larger one gets 413."
    )
    max_inputs: int = Field(default=512, ge=1, description="Most inputs in one request; more get 413.")
    max_text_bytes: int = Field(default=65536, ge=1, description="Longest text, in UTF-8 bytes; a longer one gets 413.")
    max_bytes_in_flight: int = Field(
        default=67108864,
        ge=1,
        description="Most bytes in the bodies of all requests in progress together, per worker; further requests get "
        "429. The last quarter is kept for bodies of up to 16 KiB.",
    )
    max_connections: int = Field(
        default=4096,
        ge=1,
        description="Most connections, per worker. A further one replaces the one that has been idle longest, or gets "
        "503 when all are busy.",
    )
    max_header_bytes: int = Field(
        default=32768, ge=1024, description="Largest headers and trailers of a request, in bytes; larger ones get 431."
    )
    default_timeout_ms: int = Field(
        default=30000,
        ge=1,
        le=3600000,
        description="Deadline of a request that sets no timeout_ms, and of receiving any body; then it gets 504.",
    )
    header_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Time for a connection to send a request's headers; then it is closed."
    )
    keep_alive_s: float = Field(
        default=75.0,
        gt=0,
        le=3600,
        description="Time for which a connection may be idle after an answer. It exceeds the usual 60 s of a load "
        "balancer, so that the balancer never uses a closed connection.",
    )
    write_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Longest time in which a caller reads nothing of a waiting answer; then its connection is closed.",
    )
    drain_s: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which the server goes on as before while /health/ready is 503, so that "
        "load balancers stop sending; the grace period follows. 0 from a shell, 5 in the image.",
    )
    grace_period_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds from SIGTERM, and what drain_s adds, until the process has ended. Requests that are "
        "unfinished one second before the end (half-way through a period of under two seconds) get 503.",
    )
    log_level: LogLevel = Field(default="info", description="Severity from which log lines are written.")
    log_format: LogFormat = Field(default="text", description="Log lines as text or as one JSON object each.")
    access_log: bool = Field(
        default=False, description="Write one log line for each request: its id, status and the time of each step."
    )
    log_texts: bool = Field(
        default=False,
        description="Also write the texts of a request into its log line, and keep those on which model and shadow "
        "disagree.",
    )
    trace_endpoint: str | None = Field(
        default=None,
        description="OTLP/HTTP address for OpenTelemetry traces, as in http://collector:4318/v1/traces (needs the "
        "extra tracing). Unset: no traces.",
    )

    @property
    def asks_for_keys(self) -> bool:
        """Whether API keys are configured."""
        return self.api_keys is not None or self.api_keys_file is not None
