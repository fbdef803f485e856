"""Reads a folder as `optimum-cli export onnx` writes it: what its files say of a classifier, before it is tried."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladabert_serve.backends.onnx_runtime import GraphPort, graph_ports
from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.artefact import TOKENIZER_FILE
from ladabert_serve.models.onnx_file import check_graph
from ladabert_serve.models.scores import ProblemType

CONFIG_FILE = "config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
# By precision; each lies in the folder itself or in its `onnx` folder.
EXPORTED_GRAPHS: Mapping[str, str] = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}

# Model types whose exports answer as transformers does; those of the second kind number the positions of a text from
# the one after the padding token's.
POSITIONS_FROM_ZERO = frozenset({"albert", "bert", "deberta-v2", "distilbert", "electra", "mobilebert", "modernbert"})
POSITIONS_AFTER_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
ARCHITECTURE = "ForSequenceClassification"
PROBLEM_TYPES: Mapping[str, ProblemType] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
DEFAULT_LABELS = {"0": "LABEL_0", "1": "LABEL_1"}  # transformers leaves them out of config.json
# Keys of tokenizer_config.json that transformers puts in the place of what tokenizer.json says.
OVERRIDES: Mapping[str, tuple[str, str, str]] = {
    "do_lower_case": ("normalizer", "BertNormalizer", "lowercase"),
    "strip_accents": ("normalizer", "BertNormalizer", "strip_accents"),
    "tokenize_chinese_chars": ("normalizer", "BertNormalizer", "handle_chinese_chars"),
    "add_prefix_space": ("pre_tokenizer", "ByteLevel", "add_prefix_space"),
}

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
NEEDED_INPUTS = INPUTS[:2]
OUTPUT = "logits"
EXPORT_COMMAND = "optimum-cli export onnx --task text-classification"

MAX_JSON_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 1 << 25
MAX_GRAPH_BYTES = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class ExportedGraph:
    """One graph of the folder."""

    path: Path
    content: bytes
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Export:
    """What the folder's files say."""

    graphs: Mapping[str, ExportedGraph]  # by precision, fp32 first
    tokenizer: bytes
    labels: tuple[str, ...]  # in logit order
    problem_type: ProblemType
    max_length: int  # tokens, special ones included
    pad_token_id: int | None
    vocabulary_size: int | None  # token ids that the model knows; None where the files do not say


def read_export(folder: Path, precision: str | None = None, max_length: int | None = None) -> Export:
    """Read the graphs of the folder, or the one of a precision, and what belongs to them.

    `max_length` shortens the length that the files say. Raises ArtefactError with one line that says what is missing or
    cannot be served, and how to fix it.
    """
    config = _read_object(folder / CONFIG_FILE)
    tokenizer_config_path = folder / TOKENIZER_CONFIG_FILE
    tokenizer_config = _read_object(tokenizer_config_path) if tokenizer_config_path.exists() else {}
    path = folder / CONFIG_FILE
    labels = _read_labels(path, config)
    problem_type = _read_problem_type(path, config, labels)
    tokenizer = _read_tokenizer(folder, tokenizer_config)
    length = _read_max_length(folder, config, tokenizer_config, max_length)
    graphs = {
        name: _read_graph(graph_path, len(labels)) for name, graph_path in _find_graphs(folder, precision).items()
    }
    if len({frozenset(graph.inputs) for graph in graphs.values()}) > 1:
        raise ArtefactError(f"{folder}: its two graphs have different inputs; adopt one, with --precision fp32 or int8")
    return Export(
        graphs,
        tokenizer,
        labels,
        problem_type,
        length,
        pad_token_id=_integer(path, config, "pad_token_id"),
        vocabulary_size=_integer(path, config, "vocab_size"),
    )


def _read_problem_type(path: Path, config: Mapping[str, Any], labels: Sequence[str]) -> ProblemType:
    """Check that it is a classifier of a known kind, and return which."""
    model_type, architectures = config.get("model_type"), config.get("architectures") or []
    known = sorted(POSITIONS_FROM_ZERO | POSITIONS_AFTER_PADDING)
    if model_type not in known:
        raise ArtefactError(
            f"{path}: model_type {model_type!r} is not known to answer here as it does in transformers; "
            f"known are {', '.join(known)}"
        )
    if architectures and ARCHITECTURE not in str(architectures):
        raise ArtefactError(
            f"{path}: {architectures} is no classifier; export a model of the kind …{ARCHITECTURE} ({EXPORT_COMMAND})"
        )
    # As transformers' pipeline does: one output without a word about it gets a sigmoid, as a cross-encoder's.
    unsaid = "multi_label_classification" if len(labels) == 1 else "single_label_classification"
    problem_type = str(config.get("problem_type") or unsaid)
    if problem_type not in PROBLEM_TYPES:
        raise ArtefactError(
            f"{path}: problem_type {problem_type!r} is not known; what can be served is {' or '.join(PROBLEM_TYPES)}"
        )
    if problem_type == "regression" and len(labels) != 1:
        raise ArtefactError(f"{path}: is a regression of {len(labels)} numbers; what can be served has one")
    return PROBLEM_TYPES[problem_type]


def _read_labels(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label", DEFAULT_LABELS)
    try:
        by_id = {int(key): str(name) for key, name in names.items()}
        labels = tuple(by_id[index] for index in range(len(names)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: id2label does not name every output from 0 on: {names!r}") from error
    if len(set(labels)) < len(labels):
        raise ArtefactError(f"{path}: id2label gives two outputs one name; give each its own: {names!r}")
    return labels


def _read_max_length(
    folder: Path, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], asked_for: int | None
) -> int:
    """Return the tokens that fit: as many as the model has positions, or fewer if the tokenizer or caller says so."""
    path = folder / CONFIG_FILE
    positions = _integer(path, config, "max_position_embeddings")
    if positions is None:
        raise ArtefactError(f"{path}: says no max_position_embeddings, so the longest text is not known; add it")
    if config["model_type"] in POSITIONS_AFTER_PADDING:
        padding = _integer(path, config, "pad_token_id")
        positions -= 1 + (1 if padding is None else padding)
    said = _integer(folder / TOKENIZER_CONFIG_FILE, tokenizer_config, "model_max_length")
    if asked_for is not None and asked_for > positions:
        raise ArtefactError(f"--max-length {asked_for}: the model has positions for {positions} tokens")
    return min(positions, positions if said is None else said, positions if asked_for is None else asked_for)


def _read_tokenizer(folder: Path, tokenizer_config: Mapping[str, Any]) -> bytes:
    path = folder / TOKENIZER_FILE
    if not path.exists():
        raise ArtefactError(
            f"{path}: is missing; write it with transformers: AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIR)"
        )
    content = _read_file(path, MAX_TOKENIZER_BYTES)
    tokenizer = _parse_object(path, content)
    for key, (part, kind, name) in OVERRIDES.items():
        step = tokenizer.get(part)
        if key in tokenizer_config and isinstance(step, dict) and step.get("type") == kind:
            said, found = tokenizer_config[key], step.get(name)
            if said != found:
                raise ArtefactError(
                    f"{path}: has {name} {json.dumps(found)}, but {TOKENIZER_CONFIG_FILE} says {key} "
                    f"{json.dumps(said)}, which transformers follows; write both anew with save_pretrained"
                )
    if tokenizer.get("truncation") or tokenizer.get("padding"):  # of the last call before it was saved
        return json.dumps({**tokenizer, "truncation": None, "padding": None}).encode()
    return content


def _find_graphs(folder: Path, precision: str | None) -> dict[str, Path]:
    wanted = EXPORTED_GRAPHS if precision is None else {precision: EXPORTED_GRAPHS[precision]}
    found: dict[str, Path] = {}
    for name, file in wanted.items():
        place = next((place for place in (folder / file, folder / "onnx" / file) if place.exists()), None)
        if place is not None:
            found[name] = place
    if not found:
        files = " or ".join(wanted.values())
        raise ArtefactError(f"{folder}: holds no {files}, nor does its folder onnx; export it ({EXPORT_COMMAND})")
    return found


def _read_graph(path: Path, labels: int) -> ExportedGraph:
    content = _read_file(path, MAX_GRAPH_BYTES)
    try:
        check_graph(content)
        inputs, outputs = graph_ports(content)
        _check_inputs(inputs)
        _check_output(outputs, labels)
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error
    return ExportedGraph(path, content, tuple(port.name for port in inputs))


def _check_inputs(ports: list[GraphPort]) -> None:
    names = {port.name for port in ports}
    if not names.issuperset(NEEDED_INPUTS) or not names.issubset(INPUTS):
        raise ArtefactError(
            f"its inputs are {', '.join(sorted(names))}; needed are {' and '.join(NEEDED_INPUTS)}, and "
            f"{INPUTS[2]} where the model reads it; export it anew ({EXPORT_COMMAND})"
        )
    for port in ports:
        if port.type != "tensor(int64)":
            raise ArtefactError(f"its input {port.name} is a {port.type}; export it with int64 inputs")
        if len(port.shape) != 2 or any(isinstance(size, int) for size in port.shape):
            raise ArtefactError(
                f"its input {port.name} has the fixed shape {_shown(port)}; export it with dynamic axes for batch and "
                "sequence (optimum-cli does, without --no-dynamic-axes)"
            )


def _check_output(ports: list[GraphPort], labels: int) -> None:
    found = next((port for port in ports if port.name == OUTPUT), None)
    if found is None:
        raise ArtefactError(
            f"its outputs are {', '.join(port.name for port in ports)}, not {OUTPUT}; export a classifier "
            f"({EXPORT_COMMAND})"
        )
    if found.type != "tensor(float)":
        raise ArtefactError(f"its {OUTPUT} are a {found.type}; export it in fp32")
    if found.shape and (len(found.shape) != 2 or isinstance(found.shape[0], int)):
        raise ArtefactError(
            f"its {OUTPUT} have the shape {_shown(found)}, not [batch, labels]; export a classifier with a dynamic "
            f"batch ({EXPORT_COMMAND})"
        )
    if found.shape and isinstance(found.shape[1], int) and found.shape[1] != labels:
        raise ArtefactError(
            f"has {found.shape[1]} outputs, {CONFIG_FILE} names {labels} labels; name each output in id2label"
        )


def _shown(port: GraphPort) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in port.shape) + "]"


def _integer(path: Path, values: Mapping[str, Any], key: str) -> int | None:
    value = values.get(key)
    if isinstance(value, float) and value.is_integer():  # model_max_length 1e30 stands for no limit
        value = int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ArtefactError(f"{path}: {key} is {value!r}, not a whole number from 0 on")
    return value


def _read_object(path: Path) -> dict[str, Any]:
    return _parse_object(path, _read_file(path, MAX_JSON_BYTES))


def _parse_object(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path}: not a JSON object")
    return value


def _read_file(path: Path, max_bytes: int) -> bytes:
    """Read a file, through links too: a hub's cache is made of them."""
    try:
        if path.exists() and not path.is_file():
            raise ArtefactError(f"{path}: not a plain file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise ArtefactError(f"{path}: has over {max_bytes} bytes; no more can be served")
    return content
