"""Runs the application on a socket until a signal asks it to stop, then lets it finish."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Collection
from types import FrameType

import uvicorn
import uvloop

from ladabert_serve.app import create_app
from ladabert_serve.cores import available_cores
from ladabert_serve.models.repository import Repository
from ladabert_serve.observability.tallies import WorkerTallies
from ladabert_serve.server.connection import bounded_protocol
from ladabert_serve.server.connections import Connections
from ladabert_serve.server.listener import Listeners, accept_waiting
from ladabert_serve.settings import Settings

GC_THRESHOLDS = (20000, 20, 50)  # requests leave few cycles, and a collection holds every request up
SWITCH_INTERVAL_S = 0.0005  # a thread that tokenises a long list can hold the event loop up for this long
ACCEPT_S = 0.1  # after the signal: time in which handshakes that have begun are finished
IDLE_S = 1.0  # after the signal, but at most a quarter of the grace period: for idle callers to send one more request
POLL_S = 0.02
ENDING_S = 1.0  # of the grace period, but at most half of it: to send the last answers and end the process
HARD_STOP_S = 0.5  # of these: for callers to take the last answers


class Server(uvicorn.Server):
    """Uvicorn's server that drains before it stops and then exits with code 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        registry: Repository,
        connections: Connections,
        grace_period_s: float,
        started: Callable[[], None],
        refuse: Callable[[], None],
        drain_s: float = 0.0,
    ) -> None:
        super().__init__(config)
        self._registry = registry
        self._connections = connections
        self._grace_period_s = grace_period_s
        self._drain_s = drain_s
        self._work_s = max(grace_period_s / 2, grace_period_s - ENDING_S)  # to finish what was admitted
        config.timeout_graceful_shutdown = self._work_s + HARD_STOP_S  # type: ignore[assignment]
        self._on_started = started
        self._refuse = refuse  # new callers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then report the start; after a signal meanwhile, uvicorn would leave without a shutdown."""
        await super().startup(sockets)
        self._on_started()
        if self.should_exit:
            await self.shutdown(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Turn readiness off, stop accepting, finish what was admitted, and be done within the grace period.

        With `drain_s` the server goes on accepting and answering for so long, until those who ask for readiness know.
        Every caller that completed a handshake is answered: the sockets close once all who wait are accepted, and a
        caller on an idle connection has a moment to send one more request, whose answer closes the connection.
        """
        loop = asyncio.get_running_loop()
        self._registry.leave()
        leaves_at = loop.time() + self._drain_s
        while loop.time() < leaves_at and not self.force_exit:
            await asyncio.sleep(POLL_S)
        began = loop.time()
        alarm = loop.call_later(self._work_s, self._registry.abort)
        self._connections.drain()
        self._refuse()
        await asyncio.sleep(ACCEPT_S)
        await self._stop_listening(sockets or [])
        while self._connections.idle and loop.time() < began + min(IDLE_S, self._grace_period_s / 4):
            await asyncio.sleep(POLL_S)
        self._registry.drain()
        await super().shutdown(sockets)
        alarm.cancel()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        waiting = [connection for listener in sockets for connection in accept_waiting(listener)]
        for server in self.servers:  # in the same turn, so that hardly anybody can come in between
            server.close()
        for connection in waiting:
            with contextlib.suppress(OSError):  # it has left
                await asyncio.get_running_loop().connect_accepted_socket(self._new_protocol, connection)

    def _new_protocol(self) -> asyncio.Protocol:
        protocol = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal's contract
        """Ask the main loop to stop; a second Ctrl-C stops without waiting.

        Unlike uvicorn's own it does not record the signal, which would be raised again after a clean
        shutdown and turn exit code 0 into 143.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def raise_descriptor_limit() -> None:
    """Allow as many connections as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_server(
    settings: Settings,
    listeners: Listeners,
    started: Callable[[Repository], None],
    workers: WorkerTallies | None = None,
    unloaded: Collection[str] = (),
) -> None:
    """Serve on the sockets until SIGTERM or SIGINT; raises StartError when the models cannot be loaded."""

    def end(*_: object) -> None:
        listeners.close()
        os._exit(0)  # an exception would be lost where Python ignores it, as in a finaliser

    # While models load there is nothing to finish; then the server takes over the signals.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listeners, started, workers, unloaded))


async def _serve(
    settings: Settings,
    listeners: Listeners,
    started: Callable[[Repository], None],
    workers: WorkerTallies | None,
    unloaded: Collection[str],
) -> None:
    app = create_app(settings, workers=workers, unloaded=unloaded)
    connections = Connections(settings)
    config = uvicorn.Config(
        app,
        http=bounded_protocol(connections),
        ws="none",
        lifespan="off",  # entered here, so that its StartError comes out as it is
        log_config=None,
        access_log=False,  # ladabert_serve.http.access_log has more to say
        server_header=False,
        proxy_headers=False,  # ladabert_serve.http.gates reads them, where a setting says of whom
    )
    async with app.router.lifespan_context(app):
        registry: Repository = app.state.services.registry
        server = Server(
            config,
            registry,
            connections,
            settings.grace_period_s,
            lambda: started(registry),
            listeners.refuse,
            settings.drain_s,
        )
        # What was made until here lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        await server.serve(listeners.sockets)


def announcement(settings: Settings, registry: Repository, listeners: Listeners) -> str:
    """Return what the operator reads at the start: what is served, on what, and how to call it."""
    lines = []
    for name, model in sorted(registry.models.items()):
        mark = " (default)" if name == registry.default else ""
        lines.append(
            f"{name}{mark}: version {model.artefact.version}, {model.precision}, "
            f"{model.provider}, {model.runners} runner(s), labels {', '.join(model.artefact.labels)}"
        )
    default = registry.find(registry.default)  # none where it was unloaded before this worker began
    pair = default is not None and default.artefact.task == "pair"
    body = '{"inputs": {"text": "one text", "text_pair": "another"}}' if pair else '{"inputs": "a good film"}'
    where = url = url_of(listeners.main)
    curl = "curl -s"
    if settings.uds is not None:
        where = str(settings.uds)
        curl += f" --unix-socket {settings.uds}"
    docs = url if listeners.admin is None else url_of(listeners.admin)
    workers = f"with {settings.workers} worker(s) on {available_cores()} core(s)"
    lines.append(f"listening on {where} {workers}; docs at {docs}/docs")
    key = " -H 'authorization: Bearer KEY'" if settings.asks_for_keys else ""
    lines.append(f"try: {curl} {url}/classify{key} -H 'content-type: application/json' -d '{body}'")
    return "\n".join(lines)


def url_of(listener: socket.socket) -> str:
    """Return the address at which this machine reaches a port."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return "http://localhost"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104 - a comparison
    return f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"
