"""Podman in Docker's place: images, stand-ins where no registry can be reached, and the compose files' containers."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
ENABLED = "LADABERT_TEST_CONTAINERS"
BASE = "docker.io/library/python:3.11-slim"
PROJECT = "ladaberttest"
PATIENCE_S = 60
# Without a registry, the programs of these images are taken from this machine, where Debian's packages have put them.
STAND_INS = {
    "prom/prometheus": (
        "prometheus",
        ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
    ),
    "prom/alertmanager": (
        "prometheus-alertmanager",
        ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"],
    ),
    "haproxy": ("haproxy", ["-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]),
}


def run(*command: str, timeout: float = 300, check: bool = True) -> str:
    """Return what a command prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise RuntimeError(
            f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def prepare() -> str:
    """Build the image and get the others; return why that cannot be done, or nothing."""
    images = [
        service["image"]
        for file in (COMPOSE, SCALE)
        for service in read(file)["services"].values()
        if "image" in service
    ]
    for image in (BASE, *(image for image in images if image.startswith(tuple(STAND_INS)))):
        if not (_exists(image) or _pull(image) or _stand_in(image)):
            return f"{image} can neither be pulled nor be made of what is installed here"
    certificates = ["-v", "/etc/ssl/certs:/etc/ssl/certs:ro"]
    index = ["-v", "/etc/pip.conf:/etc/pip.conf:ro"] if Path("/etc/pip.conf").exists() else []
    isolation = ["--isolation", "chroot"] if os.geteuid() == 0 else []
    build = ["--format", "docker", "--pull-never", "--layers", *isolation, *certificates, *index]
    run("buildah", "bud", *build, "-f", "docker/Dockerfile", "--target", "cpu", "-t", "ladabert:cpu", ".", timeout=900)
    return ""


def read(file: Path) -> dict[str, Any]:
    """Return a compose file, whose !reset stands for nothing."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!reset", lambda *_: None)  # type: ignore[attr-defined]
    found: dict[str, Any] = yaml.load(file.read_text(), loader)  # a subclass of the safe one
    return found


COMPOSE, SCALE = ROOT / "docker-compose.yml", ROOT / "docker/scale.yml"


def _exists(image: str) -> bool:
    return subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0


def _pull(image: str) -> bool:
    name = image if "." in image.partition("/")[0] else f"docker.io/{image if '/' in image else 'library/' + image}"
    try:
        done = subprocess.run(["podman", "pull", "-q", name], capture_output=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and subprocess.run(["podman", "tag", name, image], check=False).returncode == 0


def _stand_in(image: str) -> bool:
    """Make an image of a program that is installed here, on the same base as our own; false where it is not."""
    program, arguments = STAND_INS.get(image.partition(":")[0], ("", []))
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if not path or not _exists(BASE):
        return False
    with tempfile.TemporaryDirectory() as folder:
        needed = re.findall(r"=> (/\S+)", run("ldd", path, check=False))
        names = [f"{program}.bin", *(Path(library).name for library in needed)]
        for source, name in zip((path, *needed), names, strict=True):
            shutil.copy(source, Path(folder) / name)
        shared = Path("/usr/share/prometheus/alertmanager")  # Debian's Alertmanager has its templates there
        shutil.copytree(shared, Path(folder) / "shared") if shared.is_dir() else (Path(folder) / "shared").mkdir()
        lines = [
            f"FROM {BASE}",
            f"COPY {' '.join(names)} /opt/program/",
            "RUN mkdir -p /prometheus /alertmanager && chown 65534:65534 /prometheus /alertmanager",
            f"COPY shared {shared}/",
            "ENV LD_LIBRARY_PATH=/opt/program",
            "USER 65534",
            "WORKDIR /tmp",
            f"ENTRYPOINT {json.dumps([f'/opt/program/{program}.bin'])}",
            f"CMD {json.dumps(arguments)}",
        ]
        (Path(folder) / "Dockerfile").write_text("\n".join(lines) + "\n")
        isolation = ["--isolation", "chroot"] if os.geteuid() == 0 else []
        run("buildah", "bud", *isolation, "--format", "docker", "--pull-never", "-q", "-t", image, folder)
    return True


class Compose:
    """The containers of compose files; on the way out they are removed, whatever happened."""

    def __init__(self, *files: Path) -> None:
        self._command = [sys.executable, "-m", "podman_compose", "-p", PROJECT]
        for file in files:
            self._command += ["-f", str(file)]

    def __enter__(self) -> "Compose":
        self.down()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def down(self) -> None:
        """Remove all containers, those of a scaled service too, which podman-compose leaves."""
        left = run("podman", "ps", "-aq", "--filter", f"label=io.podman.compose.project={PROJECT}").split()
        run("podman", "rm", "-f", "-t", "1", *left, check=False)
        run(*self._command, "--profile", "alerts", "down", "-v", "-t", "1", check=False)

    def up(self, *arguments: str) -> None:
        """Start services."""
        run(*self._command, "--profile", "alerts", "up", "-d", *arguments)


def name_of(service: str, number: int = 1) -> str:
    """Return a container's name."""
    return f"{PROJECT}_{service}_{number}"


def exit_code(container: str) -> int:
    """Return with which code a container has ended."""
    return int(run("podman", "inspect", container, "--format", "{{.State.ExitCode}}"))


def address_of(container: str) -> str:
    """Return a container's address in the compose network, another one after each start."""
    networks = json.loads(run("podman", "inspect", container, "--format", "{{json .NetworkSettings.Networks}}"))
    return str(next(iter(networks.values()))["IPAddress"])


def wait_until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
    """Wait until something is so that nothing tells of; return the seconds that it took."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() > begun + patience_s:
            raise TimeoutError(f"{what}: not within {patience_s:g} s")
        time.sleep(0.05)
    return time.monotonic() - begun
