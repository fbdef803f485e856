"""Claims about Ray Serve: the same routes from two replicas, and what callers see when one of them is killed."""

import contextlib
import http.client
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import yaml

from ladabert_serve.errors import StartError
from ladabert_serve.settings import Settings
from tests.service.ray_environment import PATIENCE_S, ray_environment
from tests.service.tiny_artefact import write_artefact

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "deploy/ray/serve.yaml"
CALLERS = 8
REPLICA = "ray::ServeReplica:ladabert:ladabert"

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'ladabert[ray]'")


def configuration() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    return found


def test_the_configuration_names_settings_that_the_server_has() -> None:
    (application,) = configuration()["applications"]
    assert set(application["args"]) <= set(Settings.model_fields)
    assert application["runtime_env"]["env_vars"]["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_replica_that_leaves_has_the_grace_period_to_finish() -> None:
    (deployment,) = configuration()["applications"][0]["deployments"]
    assert deployment["graceful_shutdown_timeout_s"] > Settings.model_fields["grace_period_s"].default
    assert deployment["max_ongoing_requests"] >= Settings.model_fields["max_queue_requests"].default


@pytest.fixture(scope="module")
def on_ray() -> ModuleType:
    """Return the module that is to be tested; Ray's own import warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("ladabert_serve.ray")


@needs_ray
def test_ray_accepts_the_configuration(on_ray: ModuleType) -> None:
    schema = importlib.import_module("ray.serve.schema").ServeDeploySchema
    (application,) = schema.model_validate(configuration()).applications
    assert application.import_path == f"{on_ray.__name__}:{on_ray.app.__name__}"
    assert [deployment.name for deployment in application.deployments] == [on_ray.DEPLOYMENT]


@needs_ray
@pytest.mark.parametrize("options", [{"workers": 2}, {"admin_port": 0}], ids=str)
def test_settings_of_a_server_with_its_own_port_are_refused(on_ray: ModuleType, options: dict[str, Any]) -> None:
    with pytest.raises(StartError, match="on Ray"):
        on_ray.app(Settings(**options))


@needs_ray
@pytest.mark.parametrize(
    ("options", "resources", "runners"),
    [
        ({}, {"CPU": 3.0}, 3),
        ({}, {"CPU": 0.5}, 1),
        ({"runners": 2}, {"CPU": 1.0}, 2),
        ({}, {"CPU": 1.0, "GPU": 1.0}, None),
    ],
    ids=str,
)
def test_a_replica_has_as_many_runners_as_ray_gives_it_cores(
    on_ray: ModuleType, options: dict[str, Any], resources: dict[str, float], runners: int | None
) -> None:
    assert on_ray.in_replica(Settings(**options), resources).runners == runners


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Cluster:
    """A local Ray that serves; its processes are found below the one that was started."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self._process = process
        self.port = port

    def classify(self, text: str) -> tuple[int, Any]:
        """POST one text on a connection of its own; return status and body."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            body = json.dumps({"inputs": text})
            connection.request("POST", "/classify", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if answer.status == 200 else content

    def replicas(self) -> dict[int, psutil.Process]:
        """Return the processes of the replicas, by pid."""
        found = {}
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith(REPLICA):
                    found[process.pid] = process
        return found

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Return once something holds, with an error when the cluster ends before or it takes too long."""
        ends_at = time.monotonic() + PATIENCE_S
        while not holds():
            assert self._process.poll() is None, "serve run has ended"
            assert time.monotonic() < ends_at, what
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            return self.classify("good")[0] == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start `serve run` with the shipped configuration, two replicas, and a tiny model."""
    folder = tmp_path_factory.mktemp("ray")
    write_artefact(folder / "models", "alpha", seed=1)
    config, port = configuration(), free_port()
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["args"]["models"] = str(folder / "models")
    (deployment,) = application["deployments"]
    deployment["autoscaling_config"]["max_replicas"] = deployment["autoscaling_config"]["min_replicas"]
    deployment["ray_actor_options"]["num_cpus"] = 0.5  # two of them fit on one core
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(path)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=ray_environment(), stdout=log, stderr=log, start_new_session=True)
        try:
            cluster = Cluster(process, port)
            cluster.wait("two replicas", lambda: len(cluster.replicas()) == 2)
            cluster.wait("an answer", cluster.answers)
            yield cluster
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


class Load:
    """Callers that send one request after the other until they are stopped."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.statuses: Counter[int | str] = Counter()

    def _call(self) -> None:
        while not self._stopping.is_set():
            try:
                status, _ = self._cluster.classify("a good film")
                self.statuses[status] += 1
            except Exception as error:
                self.statuses[repr(error)] += 1

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


@needs_ray
@pytest.mark.slow
@pytest.mark.xdist_group("server")
def test_ray_serve_gives_the_servers_answers(cluster: Cluster) -> None:
    status, answer = cluster.classify("a good film")
    assert (status, answer["model"], answer["predictions"][0]["label"]) == (200, "alpha", "POSITIVE")


@needs_ray
@pytest.mark.slow
@pytest.mark.xdist_group("server")
def test_of_a_killed_replica_only_what_it_held_fails_and_it_is_replaced(cluster: Cluster) -> None:
    before = cluster.replicas()
    killed = next(iter(before))
    with Load(cluster) as load:
        cluster.wait("load", lambda: load.statuses[200] > 20 * CALLERS)
        os.kill(killed, signal.SIGKILL)
        cluster.wait("a new replica", lambda: len(cluster.replicas()) == 2 and killed not in cluster.replicas())
        answered = load.statuses[200]
        cluster.wait("load after it", lambda: load.statuses[200] > answered + 20 * CALLERS)
    assert set(load.statuses) <= {200, 500}  # every request has an answer
    assert load.statuses[500] <= CALLERS  # what was in progress on the killed one, at most one of each caller
