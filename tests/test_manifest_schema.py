"""Claims about the manifest's schema: both halves hold the same one, and it needs nothing else."""

import json
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FILE = "manifest.schema.json"


def schema_bytes(package: str) -> bytes:
    return resources.files(package).joinpath(FILE).read_bytes()


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


def test_both_halves_hold_the_same_schema() -> None:
    assert schema_bytes("ladabert_serve.models") == schema_bytes("ladabert_compress.artefact")


def test_the_models_folder_holds_none() -> None:
    assert not (REPOSITORY / "models" / FILE).exists()


@pytest.mark.parametrize("package", ["ladabert_serve.models", "ladabert_compress.artefact"])
def test_the_schema_is_installed_with_the_package(package: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    distribution, _, room = package.partition(".")
    assert f"{room}/{FILE}" in project["tool"]["setuptools"]["package-data"][distribution]


def test_the_schema_refers_to_itself_alone() -> None:
    schema = json.loads(schema_bytes("ladabert_serve.models"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(values_of(schema, "$ref")) == {"#/$defs/file", "#/$defs/rows"}


def test_every_pattern_holds_to_the_end_of_the_text() -> None:
    patterns = list(values_of(json.loads(schema_bytes("ladabert_serve.models")), "pattern"))
    assert patterns
    assert all(pattern.startswith("^") and pattern.endswith(r"$(?!\n)") for pattern in patterns)
