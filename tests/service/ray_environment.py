"""How tests start Ray: with this checkout's packages, and without a word to anybody."""

import os
import secrets
import sys

PATIENCE_S = 120.0


def ray_environment() -> dict[str, str]:
    """Return the environment of a process that starts a local Ray."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # otherwise Ray writes one into the user's home
        "ORT_DISABLE_TELEMETRY": "1",
    }
