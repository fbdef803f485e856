"""Claims about the container files: checked as text, and against the code that they start; no engine needed."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ladabert_serve.observability.drift import Reference
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.observability.model_metrics import ModelMetrics
from ladabert_serve.routes.metrics import router as metrics_router
from ladabert_serve.server.server import HARD_STOP_S
from ladabert_serve.settings import ENV_PREFIX, Settings
from tests.containers.engine import read

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
DOCUMENTATION = (ROOT / "docs/how-to/containers.md").read_text()
HAPROXY = (ROOT / "docker/haproxy.cfg").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
SET_BY_THE_IMAGE = {"host", "port", "models", "uds", "uds_mode", "admin_host", "admin_port"}
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_yaml("docker-compose.yml")["services"]
    return found


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions as (keyword, arguments), continued lines joined."""
    text = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


def image_environment() -> dict[str, str]:
    pairs = [pair for keyword, arguments in instructions() if keyword == "ENV" for pair in arguments.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def labels_of_each_metric() -> dict[str, set[str]]:
    """Return every sample name that a server with one model exposes, and its labels."""
    metrics = Metrics(["/classify"])
    reference = Reference({"labels": [1, 1], "scores": [1] * 20, "lengths": [1] * 16})
    ModelMetrics(
        metrics,
        "a",
        "1",
        "fp32",
        2.0,
        "cpu",
        ("NEGATIVE", "POSITIVE"),
        reference=reference,
        drift_window=1,
        has_cache=True,
        shadow="b",
        stages=["b", "c"],
    )
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_compose_starts_service_prometheus_and_grafana(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"ladabert", "prometheus", "grafana", "alertmanager"}
    assert services["alertmanager"]["profiles"] == ["alerts"]


def test_compose_builds_a_target_that_the_dockerfile_has(services: dict[str, dict[str, Any]]) -> None:
    build = services["ladabert"]["build"]
    assert (ROOT / build["dockerfile"]).is_file()
    stages = [arguments.split(" AS ")[-1] for keyword, arguments in instructions() if keyword == "FROM"]
    assert build["target"] in stages
    assert stages[-1] == "cpu"  # what a build without --target makes
    assert {"openvino", "cuda"} <= set(stages)


def test_every_published_port_is_loopback_only_by_default(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        for port in service["ports"]:
            assert VARIABLE.sub(r"\2", port).startswith("127.0.0.1:")


def test_the_service_can_gain_no_privilege_and_writes_only_to_tmp(services: dict[str, dict[str, Any]]) -> None:
    service = services["ladabert"]
    assert service["read_only"] is True
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    for each in services.values():
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]


def test_the_limits_have_defaults_that_a_variable_overrides(services: dict[str, dict[str, Any]]) -> None:
    for limit in ("cpus", "mem_limit", "stop_grace_period"):
        assert VARIABLE.fullmatch(services["ladabert"][limit])


def test_a_container_is_not_killed_while_the_service_finishes(services: dict[str, dict[str, Any]]) -> None:
    seconds = VARIABLE.sub(r"\2", services["ladabert"]["stop_grace_period"]).removesuffix("s")
    drain_s = float(image_environment()["LADABERT_DRAIN_S"])
    assert float(seconds) > drain_s + Settings.model_fields["grace_period_s"].default + HARD_STOP_S


def test_compose_hands_on_every_setting_that_the_image_does_not_fix(services: dict[str, dict[str, Any]]) -> None:
    expected = {ENV_PREFIX + name.upper() for name in Settings.model_fields if name not in SET_BY_THE_IMAGE}
    assert {line.partition("=")[0] for line in services["ladabert"]["environment"]} == expected


def test_the_example_of_env_lists_every_variable_with_its_default() -> None:
    expected = {}
    for name, setting in Settings.model_fields.items():
        if name not in SET_BY_THE_IMAGE:
            default = "" if setting.default is None else str(setting.default).lower()
            expected[ENV_PREFIX + name.upper()] = default
    expected |= dict(VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert dict(re.findall(r"^#(\w+)=(.*)$", "\n".join(lines), re.MULTILINE)) == expected
    assert all(line == "" or line.startswith("#") for line in lines)  # a copy changes nothing until edited


def test_prometheus_waits_until_the_service_is_healthy(services: dict[str, dict[str, Any]]) -> None:
    assert services["prometheus"]["depends_on"] == {"ladabert": {"condition": "service_healthy"}}


def test_prometheus_scrapes_the_services_port_and_path(services: dict[str, dict[str, Any]]) -> None:
    (job,) = read_yaml("docker/prometheus/prometheus.yml")["scrape_configs"]
    port = image_environment()["LADABERT_PORT"]
    assert job["static_configs"] == [{"targets": [f"ladabert:{port}"]}]
    assert job["metrics_path"] in {getattr(route, "path", None) for route in metrics_router.routes}
    assert services["ladabert"]["ports"][0].endswith(f":{port}")
    assert ("EXPOSE", port) in instructions()


def alerts() -> list[dict[str, Any]]:
    return [rule for group in read_yaml("docker/prometheus/rules.yml")["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_only_for_metrics_that_the_service_exposes_or_a_rule_records(rule: dict[str, Any]) -> None:
    recorded = {each["record"] for each in alerts() if "record" in each}
    names = re.findall(r"\bladabert[:_][\w:]+", rule["expr"])
    assert set(names) <= set(labels_of_each_metric()) | recorded
    assert names or rule["expr"].startswith("up{")


def test_each_alert_has_a_section_that_says_what_to_do() -> None:
    sections = {line[3:].strip().lower() for line in OPERATIONS.splitlines() if line.startswith("## ")}
    for rule in alerts():
        if "alert" in rule:
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert (page, anchor in sections) == ("docs/operations.md", True), rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus)")
@pytest.mark.parametrize("check", [["check", "rules", "rules.yml"], ["test", "rules", "tests.yml"]], ids=" ".join)
def test_promtool_finds_the_rules_right_and_their_tests_pass(check: list[str]) -> None:
    done = subprocess.run(["promtool", *check], cwd=ROOT / "docker/prometheus", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_rules_that_compose_mounts(services: dict[str, dict[str, Any]]) -> None:
    targets = [volume.split(":")[1] for volume in services["prometheus"]["volumes"]]
    (rules,) = read_yaml("docker/prometheus/prometheus.yml")["rule_files"]
    assert f"/etc/prometheus/{rules}" in targets


def test_prometheus_and_grafana_agree_on_the_scrape_interval() -> None:
    (source,) = read_yaml("docker/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert (
        source["jsonData"]["timeInterval"] == read_yaml("docker/prometheus/prometheus.yml")["global"]["scrape_interval"]
    )


def test_mounted_configuration_exists_and_is_read_only(services: dict[str, dict[str, Any]]) -> None:
    mounts = [volume for service in services.values() for volume in service.get("volumes", []) if volume[0] == "."]
    assert len(mounts) == 5
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert (ROOT / source).exists()
        assert mode == "ro"


def test_grafana_finds_the_dashboard_where_compose_mounts_it(services: dict[str, dict[str, Any]]) -> None:
    (provider,) = read_yaml("docker/grafana/provisioning/dashboards/ladabert.yml")["providers"]
    folder = provider["options"]["path"]
    targets = {volume.split(":")[1]: volume.split(":")[0] for volume in services["grafana"]["volumes"]}
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / targets[folder] / Path(home).relative_to(folder)).is_file()


def test_the_image_installs_its_own_code_and_else_what_the_locks_hold_without_torch() -> None:
    installs = [arguments for keyword, arguments in instructions() if keyword == "RUN" and "pip --python" in arguments]
    assert len(installs) == 4
    assert [install for install in installs if "--require-hashes" not in install] == [
        "pip --python /opt/ladabert/bin/python install --no-deps --prefix /install . "
        "&& rm /install/bin/ladabert-compress"
    ]
    for lock in ROOT.glob("docker/requirements*.txt"):
        assert not re.search(r"^(torch|transformers)==", lock.read_text(), re.MULTILINE)


def test_the_images_label_names_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in DOCKERFILE


def test_every_container_has_limits_a_healthcheck_and_comes_back(services: dict[str, dict[str, Any]]) -> None:
    for name, service in (services | read_scale()).items():
        assert {"cpus", "mem_limit", "restart"} <= set(service), name
        assert name == "ladabert" or "healthcheck" in service, name  # the image has its own


def read_scale() -> dict[str, dict[str, Any]]:
    """Return what docker/scale.yml adds: the proxy."""
    services = read(ROOT / "docker/scale.yml")["services"]
    return {name: service for name, service in services.items() if "image" in service}


def test_scaled_replicas_are_reached_through_the_proxy_alone() -> None:
    services = read(ROOT / "docker/scale.yml")["services"]
    assert services["ladabert"] == {"ports": None}
    port = image_environment()["LADABERT_PORT"]
    assert re.search(rf"^  bind :{port}$", HAPROXY, re.MULTILINE)
    assert re.search(rf"^  server-template ladabert \d+ ladabert:{port}$", HAPROXY, re.MULTILINE)


def test_the_proxy_waits_longer_than_the_service_and_sends_nothing_twice() -> None:
    seconds = {name: int(value) for name, value in re.findall(r"^  timeout ([\w-]+) (\d+)s", HAPROXY, re.MULTILINE)}
    defaults = {name: setting.default for name, setting in Settings.model_fields.items()}
    assert seconds["server"] > defaults["default_timeout_ms"] / 1000
    assert seconds["client"] == defaults["keep_alive_s"]
    assert seconds["http-request"] == defaults["header_timeout_s"]
    assert re.findall(r"^  retry-on (.*)$", HAPROXY, re.MULTILINE) == ["conn-failure"]


def test_prometheus_of_scaled_replicas_differs_only_in_how_it_finds_them() -> None:
    alone, scaled = (read_yaml(f"docker/prometheus/{name}.yml") for name in ("prometheus", "scale"))
    (target,) = alone["scrape_configs"][0].pop("static_configs")[0]["targets"]
    (found,) = scaled["scrape_configs"][0].pop("dns_sd_configs")
    assert target == f"{found['names'][0]}:{found['port']}"
    assert scaled == alone


def test_the_image_runs_as_a_fixed_user_that_is_not_root() -> None:
    runtime = DOCKERFILE[DOCKERFILE.index(" AS runtime") :]
    users = re.findall(r"^USER (.*)$", runtime, re.MULTILINE)
    assert users == ["10001:10001"]


def test_each_base_is_python_slim_at_a_minor_version_or_a_stage() -> None:
    stages: set[str] = set()
    for keyword, arguments in instructions():
        if keyword == "FROM":
            base, _, name = arguments.partition(" AS ")
            assert base in stages or base in ("python:3.11-slim", "scratch")
            stages.add(name)


def test_prometheus_and_grafana_are_pinned_to_a_release(services: dict[str, dict[str, Any]]) -> None:
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", services[name]["image"])


def test_sigterm_reaches_the_server_because_no_shell_stands_before_it() -> None:
    assert [json.loads(arguments) for keyword, arguments in instructions() if keyword == "ENTRYPOINT"] == [
        ["ladabert-serve"]
    ]


def test_the_healthcheck_asks_the_services_own_command() -> None:
    (check,) = [arguments for keyword, arguments in instructions() if keyword == "HEALTHCHECK"]
    assert json.loads(check[check.index("[") :]) == ["ladabert-serve", "health"]


def test_the_image_listens_on_every_address_and_sends_no_telemetry() -> None:
    environment = image_environment()
    assert environment["LADABERT_HOST"] == "0.0.0.0"
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    fields = {name.removeprefix(ENV_PREFIX).lower() for name in environment if name.startswith(ENV_PREFIX)}
    assert fields <= set(Settings.model_fields)


def test_the_build_context_holds_only_what_the_dockerfile_copies() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for keyword, arguments in instructions()
        if keyword == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert allowed == copied


def test_every_variable_of_the_compose_file_is_documented_with_its_default() -> None:
    variables = VARIABLE.findall((ROOT / "docker-compose.yml").read_text())
    assert variables
    for name, default in variables:
        assert re.search(rf"^\| `{name}` \| `{re.escape(default)}` \|", DOCUMENTATION, re.MULTILINE)


def test_every_image_target_and_pinned_image_is_documented(services: dict[str, dict[str, Any]]) -> None:
    for image in (
        services["prometheus"]["image"],
        services["grafana"]["image"],
        "--target cpu",
        "--target openvino",
        "--target cuda",
    ):
        assert image in DOCUMENTATION
