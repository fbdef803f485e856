"""Claims about the image and the compose files, seen in real containers."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.containers.callers import ALERTMANAGER, SERVICE, Callers, classify, get, query
from tests.containers.engine import (
    COMPOSE,
    ENABLED,
    ROOT,
    SCALE,
    Compose,
    address_of,
    exit_code,
    name_of,
    run,
    wait_until,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get(ENABLED), reason="`make test-containers` runs these"),
]
COLD_S = 5.0  # from `up` to the first answer
RESTARTS, CALLERS = 10, 64
PAUSE_S = 0.1  # of a caller during restarts: a server that starts needs a share of the cores, too
DASHBOARD = json.loads((ROOT / "docker/grafana/dashboards/ladabert.json").read_text())
UNUSED = {"Cascades"}  # panels of what the image's own models do not have
EXPRESSIONS = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    if panel["title"] not in UNUSED
    for target in panel["targets"]
]


def is_ready() -> bool:
    return get(SERVICE, "/health/ready")[0] == 200


@pytest.fixture(scope="module")
def alone() -> Iterator[float]:
    """The service by itself, as docker-compose.yml has it; the value is how long it took to answer."""
    with Compose(COMPOSE) as compose:
        begun = time.monotonic()
        compose.up("ladabert")
        wait_until(is_ready, "the service is ready")
        yield time.monotonic() - begun


def test_a_cold_start_takes_seconds(alone: float) -> None:
    assert alone < COLD_S


def test_the_container_is_healthy_and_is_root_nowhere(alone: float) -> None:
    run("podman", "healthcheck", "run", name_of("ladabert"))
    assert run("podman", "exec", name_of("ladabert"), "id", "-u").strip() == "10001"
    writes = ["podman", "exec", name_of("ladabert"), "python3", "-c", "open('/opt/x', 'w')"]
    assert "Read-only file system" in subprocess.run(writes, capture_output=True, text=True, check=False).stderr


def test_sigterm_under_load_loses_nothing_that_was_accepted(alone: float) -> None:
    with Callers(CALLERS) as callers:
        wait_until(lambda: callers.outcomes["200"] > 1000, "the callers are answered")
        run("podman", "stop", "-t", "40", name_of("ladabert"))
    assert exit_code(name_of("ladabert")) == 0
    refused = callers.outcomes.pop("ConnectionRefusedError", 0)  # once it listened no more
    assert refused
    assert set(callers.outcomes) <= {"200", "503"}, callers.outcomes
    assert callers.outcomes["503"] <= CALLERS  # who had connected and asked a second after it stopped to listen


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """One replica behind the proxy, Prometheus with the real rules, waiting seconds for minutes, and Alertmanager."""
    folder = tmp_path_factory.mktemp("rules")
    rules = (ROOT / "docker/prometheus/rules.yml").read_text()
    (folder / "rules.yml").write_text(re.sub(r"for: \d+m", "for: 3s", rules))
    volume = f"{folder / 'rules.yml'}:/etc/prometheus/rules.yml:ro"
    override = folder / "override.yml"
    override.write_text(json.dumps({"services": {"prometheus": {"volumes": [volume]}}}))
    folder.chmod(0o755)
    with Compose(COMPOSE, SCALE, override) as compose:
        compose.up("ladabert", "proxy", "prometheus", "alertmanager")
        wait_until(is_ready, "a replica is ready behind the proxy")
        wait_until(lambda: scraped() == 1, "Prometheus has found the replica")
        yield compose


def scraped() -> int:
    """Return how many replicas Prometheus reaches."""
    return len(query('up{job="ladabert"} == 1')) if get(9090, "/-/ready")[0] == 200 else 0


def test_no_panel_of_the_dashboard_is_empty_after_traffic(stack: Compose) -> None:
    lists = json.dumps({"inputs": ["a good film"] * 60})
    assert classify(json.dumps({"inputs": 1})) == 422
    with Callers(8):
        for _ in range(10):
            assert classify(lists) == 200
        wait_until(lambda: not empty_panels(), f"every panel shows something: {empty_panels()}")


def empty_panels() -> list[str]:
    """Return the panels whose expression finds no series, or only such as are no number."""
    found = []
    for title, expression in EXPRESSIONS:
        values = query(expression.replace("$__rate_interval", "30s").replace("$model", ".*"))
        if all(series["value"][1] == "NaN" for series in values):
            found.append(f"{title}: {expression}")
    return found


def test_two_replicas_share_the_load_and_one_that_is_killed_is_missed_for_moments(stack: Compose) -> None:
    stack.up("--no-recreate", "--scale", "ladabert=2", "ladabert")
    wait_until(lambda: scraped() == 2, "Prometheus has found both replicas")
    with Callers(16) as callers:
        wait_until(lambda: len(instances_that_answer()) == 2, "both replicas are asked")
        run("podman", "kill", name_of("ladabert", 2))
        before = callers.outcomes["200"]
        wait_until(lambda: callers.outcomes["200"] > before + 1000, "the callers are answered by the other one")
    lost = sum(count for outcome, count in callers.outcomes.items() if outcome != "200")
    assert lost <= 16, callers.outcomes  # what the killed one was at: nothing that it has read is sent again
    run("podman", "start", name_of("ladabert", 2))


def instances_that_answer() -> set[str]:
    """Return the replicas whose count of requests has grown lately."""
    series = query('sum by (instance) (increase(ladabert_requests_total{route="/classify"}[30s])) > 10')
    return {found["metric"]["instance"] for found in series}


def test_ten_rolling_restarts_lose_no_request(stack: Compose) -> None:
    replicas = [name_of("ladabert", number) for number in (1, 2)]
    with Callers(CALLERS, PAUSE_S) as callers:
        for number in range(RESTARTS):
            wait_until(lambda: all(map(replica_is_ready, replicas)), "both replicas are ready")
            before = callers.outcomes["200"]
            replica = replicas[number % 2]
            run("podman", "stop", "-t", "40", replica)
            assert exit_code(replica) == 0
            run("podman", "start", replica)
            assert callers.outcomes["200"] > before
    assert set(callers.outcomes) == {"200"}, callers.outcomes


def replica_is_ready(container: str) -> bool:
    """Return whether a replica says that it is ready, asked past the proxy."""
    return get(8000, "/health/ready", address_of(container))[0] == 200


def test_an_alert_reaches_alertmanager_and_is_resolved(stack: Compose) -> None:
    replicas = [name_of("ladabert", number) for number in (1, 2)]
    wait_until(lambda: "LadabertDown" not in firing(), "no alert is left of the restarts")
    run("podman", "kill", *replicas)
    wait_until(lambda: "LadabertDown" in firing(), "the alert reaches Alertmanager")
    run("podman", "start", *replicas)
    wait_until(lambda: "LadabertDown" not in firing(), "the alert is resolved", patience_s=120)


def firing() -> set[str]:
    """Return the names of the alerts that Alertmanager holds."""
    return {alert["labels"]["alertname"] for alert in json.loads(get(ALERTMANAGER, "/api/v2/alerts")[1] or "[]")}
