"""Claims about the manifests' schemas: both halves hold the same ones, and they need nothing else."""

import json
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FILES = ["manifest.schema.json", "cascade.schema.json"]


def schema_bytes(package: str, file: str) -> bytes:
    return resources.files(package).joinpath(file).read_bytes()


def values_of(schema: Any, keyword: str) -> Iterator[Any]:
    """Yield what stands under a keyword anywhere in a schema."""
    if isinstance(schema, dict):
        if keyword in schema:
            yield schema[keyword]
        for value in schema.values():
            yield from values_of(value, keyword)
    elif isinstance(schema, list):
        for value in schema:
            yield from values_of(value, keyword)


@pytest.mark.parametrize("file", FILES)
def test_both_halves_hold_the_same_schema(file: str) -> None:
    assert schema_bytes("ladabert_serve.models", file) == schema_bytes("ladabert_compress.artefact", file)


@pytest.mark.parametrize("file", FILES)
def test_the_models_folder_holds_none(file: str) -> None:
    assert not (REPOSITORY / "models" / file).exists()


@pytest.mark.parametrize("package", ["ladabert_serve.models", "ladabert_compress.artefact"])
@pytest.mark.parametrize("file", FILES)
def test_the_schema_is_installed_with_the_package(package: str, file: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    distribution, _, room = package.partition(".")
    assert f"{room}/{file}" in project["tool"]["setuptools"]["package-data"][distribution]


@pytest.mark.parametrize("file", FILES)
def test_the_schema_refers_to_itself_alone(file: str) -> None:
    schema = json.loads(schema_bytes("ladabert_serve.models", file))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(values_of(schema, "$ref")) == {f"#/$defs/{name}" for name in schema["$defs"]}


@pytest.mark.parametrize("file", FILES)
def test_every_pattern_holds_to_the_end_of_the_text(file: str) -> None:
    patterns = list(values_of(json.loads(schema_bytes("ladabert_serve.models", file)), "pattern"))
    assert patterns
    assert all(pattern.startswith("^") and pattern.endswith(r"$(?!\n)") for pattern in patterns)
