"""Makes an artefact of an ONNX export: tries its graphs as the service runs them, and writes the folder or nothing."""

import datetime
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ladabert_serve.backends.backend import FloatArray
from ladabert_serve.backends.onnx_runtime import load_onnx_backend
from ladabert_serve.errors import ArtefactError, InferenceError
from ladabert_serve.models.artefact import (
    GRAPH_FILES,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Artefact,
    artefact_of,
    check_manifest,
    read_artefact,
)
from ladabert_serve.models.export_folder import CONFIG_FILE, OUTPUT, Export, read_export
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import trial
from ladabert_serve.models.tokenizer import TextInput, TextTokenizer, Tokens

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # as in the manifest's schema
PRODUCERS = ("ladabert", "onnxruntime", "tokenizers")

# Of a logit, between a text alone and in a padded batch, as a share of the largest logit, or of 1 if that is more.
# Rounding makes some 1e-6 in fp32, and now and then a step of 1/256 in int8.
INVARIANCE_LIMITS: Mapping[str, float] = {"fp32": 4e-5, "int8": 4e-3}
REMEDIES: Mapping[str, str] = {
    "fp32": "export it with an attention mask that hides padding",
    "int8": "dynamic quantisation does this: quantise with fixed scales (static, calibrated), or adopt model.onnx",
}
LONGEST_SAMPLE = 512  # words, and so at least as many tokens where the model reads as many
SAMPLES = (
    "good",
    "The second half is better than the first, but I would not watch it again.",
    "12 of 30 parcels came late: who pays for that?",
    "warm, funny and far too short",
)
SELF_TEST_TOKENS = 12
SELF_TEST_SAMPLES = (
    "the film is a good deal better than the book that it is made of, and shorter",
    "nobody answered my letters, my calls or my mails for more than three weeks in May",
    "please cancel the order from Monday and send the money back to the same card",
    "she scored twice in the last ten minutes and the whole town was on its feet",
)
DECIMALS = 6  # of the self-test's logits


def adopt(
    folder: Path,
    out: Path,
    task: Literal["single", "pair"] = "single",
    precision: str | None = None,
    max_length: int | None = None,
) -> tuple[Artefact, list[str]]:
    """Write the export in `folder` to `out` as an artefact, and return it with a line about each graph left out.

    Every graph that is there is adopted, or the one of `precision`. An int8 graph whose answers depend on the batch is
    left out where there is an fp32 one. Raises ArtefactError with one line; then nothing is written.
    """
    _check_out(out)
    export = read_export(folder, precision, max_length)
    try:
        tokenizer = TextTokenizer(export.tokenizer, export.max_length, export.pad_token_id)
    except ArtefactError as error:
        raise ArtefactError(f"{folder}: {error}") from error
    _check_vocabulary(folder, export, tokenizer)
    manifest = _manifest(out.name, task, export, tokenizer)
    check_manifest(folder / CONFIG_FILE, manifest)
    inferences, left_out = _try_graphs(artefact_of(folder, manifest), export, tokenizer)
    manifest["self_test"] = _self_test(inferences, export)
    files = {GRAPH_FILES[name]: export.graphs[name].content for name in inferences}
    return _write(out, manifest, {**files, TOKENIZER_FILE: export.tokenizer}), left_out


def _check_out(out: Path) -> None:
    if not NAME.fullmatch(out.name):
        raise ArtefactError(f"--out: {out.name!r} cannot be a model's name; use letters, digits, '.', '_' and '-'")
    if out.exists() or out.is_symlink():
        raise ArtefactError(f"--out: {out} is there already; remove it or name another folder")


def _check_vocabulary(folder: Path, export: Export, tokenizer: TextTokenizer) -> None:
    largest = max(tokenizer.largest_id(), tokenizer.pad_id)
    if export.vocabulary_size is not None and largest >= export.vocabulary_size:
        raise ArtefactError(
            f"{folder / TOKENIZER_FILE}: has token ids up to {largest}, the model knows "
            f"{export.vocabulary_size} tokens ({CONFIG_FILE}, vocab_size); take the model's own tokenizer"
        )


def _manifest(name: str, task: str, export: Export, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Return the manifest but for the self-test and the choice of files."""
    graphs = {GRAPH_FILES[precision]: graph.content for precision, graph in export.graphs.items()}
    return {
        "schema_version": 1,
        "name": name,
        "created_at": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "task": task,
        "problem_type": export.problem_type,
        "labels": list(export.labels),
        "max_length": export.max_length,
        "pad_token_id": tokenizer.pad_id,
        "inputs": list(next(iter(export.graphs.values())).inputs),
        "output": OUTPUT,
        **_files({**graphs, TOKENIZER_FILE: export.tokenizer}),
        "calibration": {"temperature": 1.0},
        "produced_by": {name: metadata.version(name) for name in PRODUCERS},
    }


def _files(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the manifest's fields that follow from the files, whose first is the default graph."""
    precisions = {file: precision for precision, file in GRAPH_FILES.items()}
    files: dict[str, dict[str, Any]] = {
        file: {
            **({"precision": precisions[file]} if file in precisions else {}),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        for file, content in contents.items()
    }
    default_file = next(iter(contents))
    sums = "".join(files[file]["sha256"] for file in sorted(files))
    return {
        "version": hashlib.sha256(sums.encode()).hexdigest()[:12],
        "default_file": default_file,
        "files": files,
        "compression": {
            "method": "none",
            "recipe": {},
            "requested_ratio": 1,
            "reached_ratio": 1,
            "stored_bytes": files[default_file]["bytes"],
        },
    }


def _try_graphs(artefact: Artefact, export: Export, tokenizer: TextTokenizer) -> tuple[dict[str, Inference], list[str]]:
    """Return what runs each graph, by precision, and why one was left out; raises ArtefactError."""
    inferences: dict[str, Inference] = {}
    left_out: list[str] = []
    for precision, graph in export.graphs.items():
        with trial(graph.path, export.max_length):
            backend = load_onnx_backend(graph.content, graph.inputs, OUTPUT, "cpu")
            inference = Inference(artefact, tokenizer, backend)
            inference.warm_up()
            change = _largest_change(inference)
        if change <= INVARIANCE_LIMITS[precision]:
            inferences[precision] = inference
            continue
        fault = (
            f"{graph.path}: a text's logits change by {change:.1g} of their size with what shares its batch, allowed "
            f"is {INVARIANCE_LIMITS[precision]:g}; {REMEDIES[precision]}"
        )
        if not inferences:
            raise ArtefactError(fault)
        left_out.append(fault)
    return inferences, left_out


def _largest_change(inference: Inference) -> float:
    """Return by how much a logit differs between a text alone and in a padded batch, as a share of the logits' size."""
    artefact, tokenizer = inference.artefact, inference.tokenizer
    pair = "A second text, to be compared." if artefact.task == "pair" else None
    texts = [*SAMPLES, " ".join(["word"] * min(LONGEST_SAMPLE, artefact.max_length))]
    samples = [tokenizer.tokenize(TextInput(text, pair)) for text in texts]
    alone = np.concatenate([_logits(inference, [tokens]) for tokens in samples])  # (B, labels)
    together = np.concatenate([_logits(inference, samples[:-1]), _logits(inference, samples)])
    change = np.abs(together - np.concatenate([alone[:-1], alone])).max()
    return float(change / max(1.0, np.abs(alone).max()))


def _logits(inference: Inference, batch: Sequence[Tokens]) -> FloatArray:
    rows = inference.run(batch)
    for row in rows:
        if isinstance(row, Exception):
            raise InferenceError(f"gives logits that are not finite for a text of {len(batch[0].ids)} tokens")
    return np.array(rows, dtype=np.float32)


def _self_test(inferences: Mapping[str, Inference], export: Export) -> dict[str, Any]:
    """Return the manifest's self-test: tokens (B, T) without padding, and each graph's logits (B, labels)."""
    length = min(SELF_TEST_TOKENS, export.max_length)
    tokenizer = TextTokenizer(export.tokenizer, length, export.pad_token_id)
    rows = [tokenizer.tokenize(TextInput(text)).ids for text in SELF_TEST_SAMPLES]
    shortest = min(map(len, rows))
    input_ids = np.array([row[:shortest] for row in rows], dtype=np.int64)
    logits = {
        GRAPH_FILES[precision]: inference.backend.run(input_ids, np.ones_like(input_ids), np.zeros_like(input_ids))
        for precision, inference in inferences.items()
    }
    return {
        "input_ids": input_ids.tolist(),
        "logits": {file: values.astype(float).round(DECIMALS).tolist() for file, values in logits.items()},
    }


def _write(out: Path, manifest: dict[str, Any], contents: Mapping[str, bytes]) -> Artefact:
    """Write the folder beside its place, read it back as the service does, and rename it; raises ArtefactError."""
    manifest |= _files(contents)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            partial = Path(temporary) / out.name
            partial.mkdir()
            for file, content in contents.items():
                (partial / file).write_bytes(content)
            (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            read_artefact(partial)
            partial.rename(out)
    except OSError as error:
        raise ArtefactError(f"--out: {out} cannot be written: {error.strerror}; nothing is left of it") from error
    return artefact_of(out, manifest)
