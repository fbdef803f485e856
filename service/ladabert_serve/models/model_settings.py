"""Settings of single models, from a TOML file with one table for each."""

import tomllib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from ladabert_serve.errors import StartError
from ladabert_serve.settings import Settings

# What a table may set; the rest is the same for the whole process.
KEYS = (
    "weight",
    "precision",
    "provider",
    "openvino_fixed_tokens",
    "lone_text_threads",
    "max_batch_size",
    "max_batch_tokens",
    "max_batch_padding",
    "fair_window_tokens",
    "max_queue_requests",
    "max_queue_tokens",
    "max_queue_ms",
    "max_run_ms",
    "cache_mib",
    "cascade_overload",
    "shadow_model",
    "shadow_rate",
)


def settings_of(settings: Settings, name: str) -> Settings:
    """Return the settings with those of one model in the place of the general ones; raises StartError."""
    table = _read(settings).get(name, {})
    where = f"{settings.model_settings}: model {name!r}"
    if not isinstance(table, dict):
        raise StartError(f"{where}: is no table; write [{_quoted(name)}]")
    unknown = sorted(set(table).difference(KEYS))
    if unknown:
        raise StartError(f"{where}: unknown key {unknown[0]!r}; a model may set: {', '.join(KEYS)}")
    try:
        return Settings(**{**settings.model_dump(), **table})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, given = first["loc"][0], str(first["input"])[:100]
        raise StartError(f"{where}: {key}: {first['msg']}, got {given!r}") from error


def check_models(settings: Settings, served: Iterable[str]) -> None:
    """Raise StartError when the file has a table for a model that is not served, or cannot be read."""
    names = sorted(served)
    for name in _read(settings):
        if name not in names:
            quote = f"; names with a dot need quotes, as in [{_quoted('sst2-x2.5')}]" if "." in "".join(names) else ""
            raise StartError(f"{settings.model_settings}: there is no model {name!r}, only {', '.join(names)}{quote}")


def _read(settings: Settings) -> dict[str, Any]:
    path = settings.model_settings
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise StartError(f"{path}: is not TOML: {error}") from error


def _quoted(name: str) -> str:
    return f'"{name}"' if "." in name else name
