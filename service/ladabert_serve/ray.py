"""The same application on Ray Serve: `serve run ladabert_serve.ray:app`; each replica is a process with its engine."""

from typing import Any

import ray
from ray import serve

from ladabert_serve.app import Application, create_app
from ladabert_serve.errors import StartError
from ladabert_serve.observability.logs import configure_logging
from ladabert_serve.routes.health import liveness_problem
from ladabert_serve.settings import Settings

DEPLOYMENT = "ladabert"  # its name in a configuration of Ray Serve


class Replica:
    """One replica; Ray replaces it when its health check fails three times in a row."""

    app: Application  # set by Ray's wrapper

    def check_health(self) -> None:
        """Raise what only a new process helps against."""
        problem = liveness_problem(self.app.state.services.registry)
        if problem is not None:
            raise problem


def app(settings: Settings) -> Any:
    """Return the application that Ray Serve deploys; `args` of its configuration are settings, as is the environment.

    Raises StartError for settings that only a server with its own port has a use for.
    """
    if settings.workers > 1:
        raise StartError(f"workers is {settings.workers}: on Ray each replica is a worker; set num_replicas instead")
    if settings.admin_port is not None:
        raise StartError("admin_port: on Ray a replica has no port of its own; leave it out")

    def build() -> Application:
        configure_logging(settings)
        return create_app(in_replica(settings, ray.get_runtime_context().get_assigned_resources()))

    return serve.deployment(serve.ingress(build)(Replica), name=DEPLOYMENT).bind()


def in_replica(settings: Settings, resources: dict[str, float]) -> Settings:
    """Return the settings with as many runners as Ray gives the replica cores: Ray limits no process to its cores."""
    if settings.runners is not None or "GPU" in resources:
        return settings
    return settings.model_copy(update={"runners": max(1, int(resources.get("CPU", 1)))})
