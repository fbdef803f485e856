"""Several worker processes on one port: started, replaced when they die, stopped together."""

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event, Lock
from types import FrameType

from service.logs import configure_logging
from service.settings import Settings

logger = logging.getLogger(__name__)

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported
START_FAILED = 1
RESPAWN_DELAY_S = 1.0


def run_workers(settings: Settings, listener: socket.socket) -> int:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT; return the exit code."""
    metrics_folder = tempfile.mkdtemp(prefix="ladabert-metrics-")
    os.environ[MULTIPROCESS_VARIABLE] = metrics_folder
    try:
        return _Supervisor(settings, listener, metrics_folder).run()
    finally:
        shutil.rmtree(metrics_folder, ignore_errors=True)


class _Supervisor:
    def __init__(self, settings: Settings, listener: socket.socket, metrics_folder: str) -> None:
        self._settings = settings
        self._listener = listener
        self._metrics_folder = metrics_folder
        self._context = multiprocessing.get_context("spawn")
        self._started = self._context.Event()  # some worker listens
        self._complaint = _Complaint(self._context.Lock(), self._context.Event())
        self._workers: list[SpawnProcess] = []
        self._stopping = False
        self._exit_code = 0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for index in range(self._settings.workers):
            self._spawn(announce=index == 0)
        while self._workers:
            multiprocessing.connection.wait([worker.sentinel for worker in self._workers])
            for worker in [worker for worker in self._workers if not worker.is_alive()]:
                self._workers.remove(worker)
                self._bury(worker)
        return self._exit_code

    def _spawn(self, announce: bool) -> None:
        if self._stopping:
            return
        worker = self._context.Process(
            target=_work, args=(self._settings, self._listener, self._started, self._complaint, announce), name="worker"
        )
        worker.start()
        self._workers.append(worker)
        if self._stopping:  # the signal came while it was being started
            worker.terminate()

    def _bury(self, worker: SpawnProcess) -> None:
        """Clean up after a worker that ended, and replace it unless that is what was asked for."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid, self._metrics_folder)  # type: ignore[no-untyped-call]
        if self._stopping:
            return
        if worker.exitcode == START_FAILED and not self._started.is_set():
            self._exit_code = START_FAILED
            self._stop(signal.SIGTERM, None)
            return
        logger.error("worker %s ended with exit code %s and is replaced", worker.pid, worker.exitcode)
        time.sleep(RESPAWN_DELAY_S)
        self._spawn(announce=False)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal's contract
        self._stopping = True
        self._listener.close()  # or callers would queue on a port that nobody answers
        for worker in self._workers:
            if worker.is_alive():
                worker.terminate()


@dataclass(frozen=True, slots=True)
class _Complaint:
    """Why the server cannot start, said by the first worker that knows; it is ended when another one has failed."""

    lock: Lock
    made: Event

    def make(self, error: Exception) -> None:
        """Write the line, unless another worker did; returns when it is written."""
        with self.lock:
            if not self.made.is_set():
                sys.stderr.write(f"ladabert-serve: {error}\n")
                sys.stderr.flush()
                self.made.set()


def _work(settings: Settings, listener: socket.socket, started: Event, complaint: _Complaint, announce: bool) -> None:
    """Be one worker process."""
    from service.errors import StartError
    from service.registry import Registry
    from service.server import announcement, run_server

    configure_logging(settings)
    threading.Thread(target=_stop_with_parent, name="parent-watch", daemon=True).start()

    def tell(registry: Registry) -> None:
        started.set()
        if announce:
            sys.stdout.write(announcement(settings, registry, listener.getsockname()) + "\n")
            sys.stdout.flush()

    try:
        run_server(settings, listener, tell)
    except StartError as error:
        complaint.make(error)
        sys.exit(START_FAILED)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        with contextlib.suppress(ProcessLookupError):
            os.kill(os.getpid(), signal.SIGTERM)
