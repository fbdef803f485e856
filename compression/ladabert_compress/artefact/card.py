"""The model card of an artefact, README.md: its manifest in words, with the front matter that the hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ladabert_compress.artefact.manifest import METRIC_NAMES, main_figure

HUB_METRICS = {"accuracy": "accuracy", "pearson": "pearsonr"}
CARD_FILE = "README.md"
LISTED_LABELS = 20
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Licences that the hub knows by these names; others are `other` with a name.
LICENCES = (
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gpl-3.0",
    "lgpl-3.0",
    "mit",
    "openrail",
    "unknown",
)


def model_card(manifest: Mapping[str, Any]) -> str:
    """Front matter (licence, base model, results) and what a person wants to know: use, figures, limits."""
    parts = (_front_matter, _what_it_is, _use, _figures, _limits)
    return "\n".join(line for part in parts for line in (*part(manifest), "")).rstrip("\n") + "\n"


def _front_matter(manifest: Mapping[str, Any]) -> Iterator[str]:
    teacher, figures = manifest["teacher"], manifest["evaluation"]
    licence, data_set = teacher["licence"].lower(), figures["data_set"]
    kind = re.split(r"[/:]", data_set.removeprefix("hub:"))[0] if data_set.startswith("hub:") else "file"
    yield "---"
    if licence in LICENCES:
        yield f"license: {licence}"
    else:
        yield "license: other"
        yield f"license_name: {_yaml(teacher['licence'])}"
    if HUB_ID.fullmatch(teacher["source"]):
        yield f"base_model: {_yaml(teacher['source'])}"
    yield "library_name: onnx"
    yield "pipeline_tag: text-classification"
    yield "tags: [ladabert, onnx, model-compression, knowledge-distillation]"
    if figures.get("labels") != "teacher":  # the hub's results are about labels of people
        yield "model-index:"
        yield f"  - name: {_yaml(manifest['name'])}"
        yield "    results:"
        yield "      - task: {type: text-classification}"
        yield f"        dataset: {{name: {_yaml(data_set)}, type: {_yaml(kind)}, split: {_yaml(figures['split'])}}}"
        yield "        metrics:"
        metric = main_figure(figures)
        kind = HUB_METRICS[metric]
        yield f"          - {{type: {kind}, value: {figures['files'][manifest['default_file']][metric]:.4f}}}"
    yield "---"


def _what_it_is(manifest: Mapping[str, Any]) -> Iterator[str]:
    made, teacher = manifest["compression"], manifest["teacher"]
    what = "pairs of texts" if manifest["task"] == "pair" else "texts"
    labels = ", ".join(map(code, manifest["labels"][:LISTED_LABELS]))
    more = len(manifest["labels"]) - LISTED_LABELS
    each = "any number of these labels" if manifest["problem_type"] == "multi_label" else "one of these labels"
    yield f"# {manifest['name']}"
    yield ""
    origin = (
        f"It is the teacher {code(teacher['name'])} itself, not compressed"
        if made["method"] == "none"
        else f"{made['method']} made it of the teacher {code(teacher['name'])}, ×{made['reached_ratio']:.2f} smaller"
    )
    kind = "regression" if manifest["problem_type"] == "regression" else "classifier"
    yield f"A {kind} of {what}. {origin}. The teacher was fine-tuned from {code(teacher['source'])}."
    yield ""
    if manifest["problem_type"] == "regression":
        yield f"It gives each input a number, {labels}, as its teacher would."
        return
    yield f"It gives each input {each}: {labels}" + (f" and {more:,} more." if more > 0 else ".")


def how_to_serve(manifest: Mapping[str, Any], folders: str) -> Iterator[str]:
    """The section on use up to a request; `folders` is what to put into the folder of models."""
    text: Any = "a text of yours"
    if manifest["task"] == "pair":
        text = {"text": "a text of yours", "text_pair": "and a second one"}
    body = json.dumps({"model": manifest["name"], "inputs": text})
    yield "## Use"
    yield ""
    yield f"Put {folders} into a folder `models`, install `ladabert`, and:"
    yield ""
    yield "```"
    yield "ladabert-serve --models models"
    yield f"curl -s http://127.0.0.1:8000/classify -H 'content-type: application/json' -d '{body}'"
    yield "```"


def _use(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield from how_to_serve(manifest, "this folder")
    yield ""
    function = "sigmoid" if manifest["problem_type"] == "multi_label" else "softmax"
    then = f"divide by the temperature {manifest['calibration']['temperature']:.3f}, then {function}"
    if manifest["problem_type"] == "regression":
        then = "they are the scores"
    yield (
        f"In ONNX Runtime, the graph reads {', '.join(map(code, manifest['inputs']))}, int64 of shape (batch, tokens) "
        f"from `tokenizer.json`. It answers `{manifest['output']}`, float32 of shape (batch, labels): {then}. "
        "Files that end in `.gz` are gzip."
    )


def _figures(manifest: Mapping[str, Any]) -> Iterator[str]:
    made, teacher, figures = manifest["compression"], manifest["teacher"], manifest["evaluation"]
    by_people = figures.get("labels") != "teacher"
    metric = main_figure(figures)
    whose = "the data's" if by_people else "the teacher's, as nobody labelled them"
    yield "## Figures"
    yield ""
    yield "| | teacher | this model |"
    yield "|---|---|---|"
    yield f"| parameters | {teacher['parameters']:,} | {made['parameters']:,} |"
    yield f"| parameters that are not zero | {teacher['parameters']:,} | {made['nonzero_parameters']:,} |"
    yield ""
    yield (
        f"Table: {figures['rows']:,} rows of {code(figures['data_set'])} ({figures['split']}); labels are {whose}."
        + (f" The teacher's {METRIC_NAMES[metric]} is {figures[f'teacher_{metric}']:.4f}." if by_people else "")
    )
    yield ""
    yield f"| file | bytes | {METRIC_NAMES[metric]} | agreement with the teacher |"
    yield "|---|---|---|---|"
    for name, scores in figures["files"].items():
        accuracy = f"{scores[metric]:.4f}" if by_people else "–"
        yield f"| `{name}` | {manifest['files'][name]['bytes']:,} | {accuracy} | {scores['agreement']:.4f} |"
    rows = [row for row in manifest["latency"]["table"] if row["file"] == manifest["default_file"]]
    if rows:
        yield ""
        yield (
            f"Table: median milliseconds of `{manifest['default_file']}` in ONNX Runtime, "
            f"{manifest['latency']['threads']} thread, {plain(manifest['latency']['machine'])}."
        )
        yield ""
        yield "| texts | tokens each | ms |"
        yield "|---|---|---|"
        yield from (f"| {row['batch']} | {row['tokens']} | {row['median_ms']:.3f} |" for row in rows)


def _limits(manifest: Mapping[str, Any]) -> Iterator[str]:
    calibration, data_set = manifest["calibration"], code(manifest["evaluation"]["data_set"])
    yield "## Limits"
    yield ""
    yield f"- It reads {manifest['max_length']} tokens of an input; a server cuts what is longer, and says so."
    yield f"- The figures are about rows like those of {data_set}. Try it on your own before you rely on it."
    yield "- It learnt its teacher's answers, with the teacher's errors and biases."
    rows = calibration.get("rows", 0)
    if manifest["problem_type"] == "regression":
        yield "- Its numbers have no fixed limits: compare them with each other rather than with a threshold of yours."
    elif calibration["temperature"] != 1:
        yield f"- Its scores are calibrated on {rows:,} held-out rows. Elsewhere they may be too sure or too unsure."
    else:
        yield "- Its scores are not calibrated: 0.9 need not be right nine times in ten."
    yield f"- Licence of the base: {plain(manifest['teacher']['licence'])}."
    yield ""
    yield "`manifest.json` has every setting of the run."


def _yaml(text: str) -> str:
    """A string of JSON is one of YAML, whatever stands in it."""
    return json.dumps(text, ensure_ascii=False)


def code(text: str) -> str:
    return f"`{plain(text)}`"


def plain(text: str) -> str:
    """Text in which nothing is Markdown of its own: on one line, without backquotes, bars and tags."""
    return re.sub(r"[`|<>\s]+", " ", text).strip()
