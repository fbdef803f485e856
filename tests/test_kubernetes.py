"""Claims about deploy/kubernetes: what kustomize makes fits Kubernetes' own schemas, and the image, settings and rules.

``python -m tests.test_kubernetes`` writes the PrometheusRule anew from docker/prometheus/rules.yml.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ladabert_serve.observability.kinds import KINDS
from ladabert_serve.routes.health import router as health_router
from ladabert_serve.server.server import HARD_STOP_S
from ladabert_serve.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/kubernetes"
RULES = ROOT / "docker/prometheus/rules.yml"
PROMETHEUS_RULE = FOLDER / "components/monitoring/prometheus-rule.yaml"
MODELS = sorted(path.name for path in FOLDER.glob("components/models-*"))
OVERLAYS = ("cpu", "gpu")
VERSION = "1.37"  # of Kubernetes, whose schemas are asked
OPERATORS = "monitoring.coreos.com/v1"  # the Prometheus operator's resources, which those schemas do not know
# What KServe's predictor has beside a pod's own fields.
PREDICTOR = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
IMAGE_USER = 10001
DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")

KUBECTL = shutil.which("kubectl", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed: make .venv/bin/kubectl")


def kustomize(folder: Path) -> list[dict[str, Any]]:
    """Return what `kubectl kustomize` makes of a folder."""
    assert KUBECTL is not None
    made = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return list(yaml.safe_load_all(made.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Return the resources of an overlay by kind."""
    return {resource["kind"]: resource for resource in kustomize(FOLDER / "overlays" / request.param)}


def with_component(tmp_path: Path, component: str) -> dict[str, dict[str, Any]]:
    """Return the resources of the overlay for CPUs with an optional component."""
    copied = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, copied)
    path = copied / "overlays/cpu/kustomization.yaml"
    line = f"  # - ../../components/{component}"
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, line.replace("# ", "")))
    return {resource["kind"]: resource for resource in kustomize(path.parent)}


def pod_of(resources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = resources["Deployment"]["spec"]["template"]["spec"]
    return pod


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


def check_schema(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, VERSION, strict=True)


def rendered_rule() -> str:
    """Return the PrometheusRule that holds the rules which compose's Prometheus loads."""
    resource = {
        "apiVersion": OPERATORS,
        "kind": "PrometheusRule",
        "metadata": {"name": "ladabert"},
        "spec": yaml.safe_load(RULES.read_text()),
    }
    head = "# Written by python -m tests.test_kubernetes from docker/prometheus/rules.yml.\n"
    return head + yaml.safe_dump(resource, sort_keys=False, width=1000)


def test_the_prometheus_rule_is_what_compose_loads() -> None:
    assert PROMETHEUS_RULE.read_text() == rendered_rule(), "run: python -m tests.test_kubernetes"


@needs_kubectl
def test_every_resource_fits_the_schema_strictly(overlay: dict[str, dict[str, Any]]) -> None:
    for resource in overlay.values():
        if resource["apiVersion"] != OPERATORS:
            check_schema(resource)
    assert set(overlay) >= {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}


@needs_kubectl
def test_the_schema_refuses_a_field_that_there_is_not(overlay: dict[str, dict[str, Any]]) -> None:
    wrong = copy.deepcopy(overlay["Deployment"])
    pod_of({"Deployment": wrong})["terminationGraceSeconds"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        check_schema(wrong)


@needs_kubectl
@pytest.mark.parametrize("component", MODELS)
def test_models_from_elsewhere_have_a_digest_and_fit_the_schema(tmp_path: Path, component: str) -> None:
    resources = with_component(tmp_path, component)
    check_schema(resources["Deployment"])
    pod = pod_of(resources)
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "models")
    source = volume["image"]["reference"] if "image" in volume else pod["initContainers"][0]["image"]
    assert DIGEST.fullmatch(source)
    (container,) = pod["containers"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "models")
    assert mount["readOnly"] is True
    assert environment_of(container)["LADABERT_MODELS"].startswith(mount["mountPath"])
    assert environment_of(container)["LADABERT_DRAIN_S"]  # the patch added a variable, and replaced none


@needs_kubectl
def test_api_keys_come_from_a_folder_that_follows_the_secret(tmp_path: Path) -> None:
    resources = with_component(tmp_path, "api-keys")
    check_schema(resources["Deployment"])
    (container,) = pod_of(resources)["containers"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "keys")
    assert "subPath" not in mount  # such a file stays as it was
    assert environment_of(container)["LADABERT_API_KEYS_FILE"].startswith(f"{mount['mountPath']}/")


@needs_kubectl
def test_a_pod_may_do_what_the_restricted_standard_allows(overlay: dict[str, dict[str, Any]]) -> None:
    assert overlay["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    check_restricted(pod_of(overlay))


@needs_kubectl
@pytest.mark.parametrize("component", MODELS)
def test_an_init_container_may_do_no_more(tmp_path: Path, component: str) -> None:
    check_restricted(pod_of(with_component(tmp_path, component)))


def check_restricted(pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"]) == (True, IMAGE_USER)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert all(set(volume) - {"name"} <= {"emptyDir", "image"} for volume in pod["volumes"])
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


@needs_kubectl
def test_a_pod_is_not_killed_while_the_server_finishes(overlay: dict[str, dict[str, Any]]) -> None:
    check_ending(pod_of(overlay))


def check_ending(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    variables = environment_of(container)
    assert float(variables["LADABERT_DRAIN_S"]) > 0
    grace = Settings.model_fields["grace_period_s"].default
    seconds = float(variables["LADABERT_DRAIN_S"]) + float(variables.get("LADABERT_GRACE_PERIOD_S", grace))
    assert pod["terminationGracePeriodSeconds"] > seconds + HARD_STOP_S


@needs_kubectl
def test_probes_ask_routes_of_the_server_on_its_port(overlay: dict[str, dict[str, Any]]) -> None:
    (container,) = pod_of(overlay)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    routes = {getattr(route, "path", None) for route in health_router.routes}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in routes
        assert asked["port"] in ports
    assert ports["admin"] == int(environment_of(container)["LADABERT_ADMIN_PORT"])
    assert f"LADABERT_PORT={ports['http']}" in (ROOT / "docker/Dockerfile").read_text()


@needs_kubectl
def test_variables_are_settings(overlay: dict[str, dict[str, Any]]) -> None:
    (container,) = pod_of(overlay)["containers"]
    names = {name.removeprefix(ENV_PREFIX).lower() for name in environment_of(container)}
    assert names <= set(Settings.model_fields)


@needs_kubectl
def test_runners_have_whole_cores_of_their_own(overlay: dict[str, dict[str, Any]]) -> None:
    (container,) = pod_of(overlay)["containers"]
    resources = container["resources"]
    assert int(resources["limits"]["cpu"]) == int(resources["requests"]["cpu"])
    assert resources["limits"]["memory"] == resources["requests"]["memory"]


@needs_kubectl
def test_everything_selects_the_pods_by_the_same_label(overlay: dict[str, dict[str, Any]]) -> None:
    labels = overlay["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert overlay["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget", "ServiceMonitor"):
        assert overlay[kind]["spec"]["selector"]["matchLabels"] == labels
    assert overlay["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    for constraint in pod_of(overlay)["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == labels
    assert {resource["metadata"].get("namespace", "ladabert") for resource in overlay.values()} == {"ladabert"}


@needs_kubectl
def test_the_autoscaler_asks_for_a_metric_that_the_adapter_makes_of_one_of_the_servers(
    overlay: dict[str, dict[str, Any]],
) -> None:
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    spec = overlay["HorizontalPodAutoscaler"]["spec"]
    (name,) = (metric["pods"]["metric"]["name"] for metric in spec["metrics"] if metric["type"] == "Pods")
    assert name in KINDS
    assert rule["seriesQuery"].startswith(name + "{")
    assert spec["minReplicas"] > overlay["PodDisruptionBudget"]["spec"]["maxUnavailable"]


@needs_kubectl
def test_prometheus_may_reach_the_port_that_it_scrapes_and_callers_the_other(
    overlay: dict[str, dict[str, Any]],
) -> None:
    (endpoint,) = overlay["ServiceMonitor"]["spec"]["endpoints"]
    ports = [[port["port"] for port in rule["ports"]] for rule in overlay["NetworkPolicy"]["spec"]["ingress"]]
    assert ports == [["http"], [endpoint["port"]]]
    assert endpoint["port"] in {port["name"] for port in overlay["Service"]["spec"]["ports"]}


def test_the_inference_service_of_kserve_holds_a_pod_that_fits_the_schema() -> None:
    service = yaml.safe_load((FOLDER / "kserve/inference-service.yaml").read_text())
    predictor = service["spec"]["predictor"]
    pod = {name: value for name, value in predictor.items() if name not in PREDICTOR}
    check_schema({"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": pod})
    check_restricted(pod)
    check_ending(pod)
    assert pod["containers"][0]["name"] == "kserve-container"  # the one that KServe sends requests to


if __name__ == "__main__":
    PROMETHEUS_RULE.write_text(rendered_rule())
