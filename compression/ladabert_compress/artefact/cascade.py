"""A cascade's folder: which artefacts can be its stages, its manifest, and how it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ladabert_compress.artefact.card import CARD_FILE
from ladabert_compress.artefact.cascade_card import cascade_card
from ladabert_compress.artefact.manifest import (
    CASCADE_SCHEMA_FILE,
    GRAPH_FILES,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    validate_manifest,
)
from ladabert_compress.artefact.reading import read_manifest
from ladabert_compress.artefact.writing import now, written_whole
from ladabert_compress.errors import ExportError, OptionError

PRODUCERS = ("ladabert", "numpy", "onnxruntime", "tokenizers")


@dataclass(frozen=True)
class Stage:
    """An artefact that a cascade asks."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Under which the server finds it."""
        return str(self.manifest["name"])


def read_stages(folders: Sequence[Path], out: Path) -> list[Stage]:
    """The artefacts, which can be the stages of a cascade ``out``.

    Raises:
        OptionError: they do not fit each other, or ``out``.
        ExportError: one is no artefact.
    """
    if len(folders) < 2:
        raise OptionError("--stages: a cascade needs at least two artefacts, the fastest first")
    stages = [Stage(folder, read_manifest(folder)) for folder in folders]
    models = out.absolute().parent.resolve()
    for stage in stages:
        if stage.folder.resolve().parent != models:
            raise OptionError(
                f"--stages: {stage.folder} does not stand beside {out}, where a server looks for it; "
                f"copy it there, or name an --out in {stage.folder.resolve().parent}"
            )
        if stage.folder.resolve().name != stage.name:
            raise OptionError(
                f"--stages: {stage.folder}: its manifest calls it {stage.name}; give the folder that name"
            )
        _check_kind(stage, stages[-1])
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise OptionError(f"--stages: {', '.join(names)}: each artefact can be one stage only")
    if out.name in names:
        raise OptionError(f"--out: {out} is one of the stages; give the cascade a name of its own")
    if (out / TOKENIZER_FILE).exists() or any((out / name).exists() for name in GRAPH_FILES.values()):
        raise OptionError(f"--out: {out} is an artefact with a graph, which would be lost; name another folder")
    return stages


def _check_kind(stage: Stage, last: Stage) -> None:
    manifest, other = stage.manifest, last.manifest
    if manifest["problem_type"] != "single_label" or len(manifest["labels"]) < 2:
        kind = "of one logit" if len(manifest["labels"]) < 2 else "multi-label"
        raise OptionError(f"--stages: {stage.folder} is {kind}; stages have to choose one label of several")
    if manifest["task"] != other["task"]:
        raise OptionError(
            f"--stages: {stage.folder} is a {manifest['task']} task, {last.folder} a {other['task']} task; "
            "name artefacts of one task"
        )
    if set(manifest["labels"]) != set(other["labels"]):
        odd = sorted(set(manifest["labels"]) ^ set(other["labels"]))[0]
        raise OptionError(
            f"--stages: {stage.folder} and {last.folder} have other labels (only one has {odd!r}); "
            "name artefacts with the same labels"
        )


def cascade_manifest(
    name: str,
    stages: Sequence[Stage],
    thresholds: Sequence[Sequence[float]],
    choice: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest; ``choice`` holds ``measure`` and ``target``, ``thresholds`` a row for each stage but the last."""
    last = stages[-1].manifest
    entries: list[dict[str, Any]] = [
        {
            "name": stage.name,
            "version": stage.manifest["version"],
            "file": stage.manifest["default_file"],
            "sha256": stage.manifest["files"][stage.manifest["default_file"]]["sha256"],
        }
        for stage in stages
    ]
    for entry, row in zip(entries[:-1], thresholds, strict=True):
        entry["thresholds"] = [float(value) for value in row]
    return {
        "schema_version": 1,
        "name": name,
        "version": hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:12],
        "created_at": now(),
        "task": last["task"],
        "problem_type": "single_label",
        "labels": list(last["labels"]),
        "max_length": min(stage.manifest["max_length"] for stage in stages),
        "cascade": {**choice, "stages": entries},
        "evaluation": dict(evaluation),
        "produced_by": {producer: metadata.version(producer) for producer in PRODUCERS},
    }


def write_cascade(out: Path, manifest: Mapping[str, Any]) -> None:
    """Writes manifest and card, whole or not at all.

    Raises:
        ExportError: the manifest does not fit its schema, or the disk is full; nothing is changed.
    """
    validate_manifest(manifest, CASCADE_SCHEMA_FILE)
    try:
        with written_whole(out) as partial:
            (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            (partial / CARD_FILE).write_text(cascade_card(manifest), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(f"{out}: cannot be written ({reason}); put that right and run the command again") from error
