"""Claims about Grafana's dashboard: made from its description, of metrics that the server has, in a grid."""

import json
import re
import runpy
from typing import Any

import pytest

from tests.test_containers import ROOT, alerts, labels_of_each_metric, read_yaml

FILE = ROOT / "docker/grafana/dashboards/ladabert.json"
DESCRIPTION = ROOT / "docker/grafana/dashboard.py"
GRID = 24  # columns


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def labels_of_each_rule() -> dict[str, set[str]]:
    """Return what each recording rule gives, and the labels that it keeps."""
    found = {}
    for rule in alerts():
        if "record" in rule:
            kept = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
            found[rule["record"]] = {label.strip() for labels in kept for label in labels.split(",")} - {"le"}
    return found


def test_the_dashboard_is_what_its_description_makes() -> None:
    assert FILE.read_text() == runpy.run_path(str(DESCRIPTION))["build"](), (
        f"run: python {DESCRIPTION.relative_to(ROOT)}"
    )


def test_every_panel_reads_the_provisioned_data_source() -> None:
    (source,) = read_yaml("docker/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    for panel in panels():
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("query", queries())
def test_a_panel_asks_only_for_metrics_and_labels_that_there_are(query: str) -> None:
    known = {**labels_of_each_metric(), **labels_of_each_rule(), "ALERTS": {"alertname", "alertstate"}}
    names = re.findall(r"\bladabert[_:][\w:]+|\bALERTS\b", query)
    assert names
    assert set(names) <= set(known)
    scraped = {"instance"}  # Prometheus adds it
    groups = re.findall(r"\bby \(([^)]*)\)", query)
    for label in {label.strip() for group in groups for label in group.split(",")} | set(
        re.findall(r'(\w+)=~?"', query)
    ):
        assert all(label in known[name] | scraped for name in names if name.endswith("_bucket") or label != "le")


@pytest.mark.parametrize(
    "metric",
    [
        "ladabert_requests_total",
        "ladabert:errors:ratio5m",
        "ladabert:request_duration_seconds:p50",
        "ladabert:request_duration_seconds:p90",
        "ladabert:request_duration_seconds:p99",
        "ladabert_tokenize_duration_seconds_sum",
        "ladabert_queue_duration_seconds_sum",
        "ladabert_inference_duration_seconds_sum",
        "ladabert_queue_depth",
        "ladabert:expected_wait_seconds",
        "ladabert_batch_size_sum",
        "ladabert_batch_padding_ratio_sum",
        "ladabert_rejected_total",
        "ladabert_predictions_total",
        "ladabert_prediction_score_bucket",
        "ladabert_drift",
        "ladabert_model_info",
        "ladabert_worker_cpu_seconds_total",
        "ladabert_worker_resident_memory_bytes",
    ],
)
def test_the_dashboard_shows(metric: str) -> None:
    assert any(re.search(rf"\b{metric}\b", query) for query in queries())


def test_the_panels_fill_the_grid_and_none_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken
        taken |= cells
    height = 1 + max(y for _, y in taken)
    assert len(taken) == GRID * height


def test_every_panel_says_what_it_shows() -> None:
    assert all(panel["title"] and panel["description"] for panel in panels())
