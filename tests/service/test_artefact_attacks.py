"""Claims about models folders that somebody else made: each is refused in one line before it costs anything."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from ladabert_serve.cli import main
from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.artefact import find_artefacts, read_artefact
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.onnx_file import CHILDREN, DATA_LOCATION, EXTERNAL_DATA, FUNCTIONS, OP_TYPE
from tests.service.tiny_artefact import change_manifest, seal, write_artefact

Break = Callable[[Path], Any]


def load(models: Path) -> None:
    """Do what the server does at its start with every artefact of a folder."""
    for folder in find_artefacts(models):
        artefact = read_artefact(folder)
        load_inference(artefact, artefact.graph_file("auto"), "cpu")


def refusal(models: Path) -> str:
    """Return the one line that refuses a models folder."""
    with pytest.raises(ArtefactError) as raised:
        load(models)
    line = str(raised.value)
    assert line.isprintable()
    assert len(line) <= 1001
    return line


def field(name: str, value: Any) -> Break:
    """Return what sets a field of the manifest, as in `compression.recipe`."""

    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        *parents, last = name.split(".")
        place = manifest
        for parent in parents:
            place = place[parent]
        place[last] = value
        path.write_text(json.dumps(manifest))

    return change


def written(old: str, new: str) -> Break:
    """Return what replaces a piece of the manifest's text."""

    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def file_field(file: str, **values: Any) -> Break:
    def change(folder: Path) -> None:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        files[file] |= values
        change_manifest(folder, files=files)

    return change


def renamed(name: str) -> Break:
    def change(folder: Path) -> None:
        change_manifest(folder, name=name)
        folder.rename(folder.parent / name)

    return change


def in_place_of(file: str, make: Callable[[Path], Any]) -> Break:
    """Return what puts something else where a file was, which it keeps elsewhere."""

    def change(folder: Path) -> None:
        (folder / file).rename(folder.parent.parent / file)
        make(folder / file)

    return change


def flip_a_bit(folder: Path) -> None:
    path = folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def link_the_folder(folder: Path) -> None:
    elsewhere = folder.parent.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


FOLDERS: list[tuple[str, Break, str]] = [
    ("a folder that is a link", link_the_folder, "tiny: is a symbolic link"),
    ("a manifest that is a link",
     in_place_of("manifest.json", lambda path: path.symlink_to("../../manifest.json")),
     "manifest.json: is a symbolic link"),
    ("a graph that is a link",
     in_place_of("model.onnx", lambda path: path.symlink_to("../../model.onnx")), "model.onnx: is a symbolic link"),
    ("a link that leads nowhere",
     in_place_of("model.onnx", lambda path: path.symlink_to("nowhere")), "model.onnx: is a symbolic link"),
    ("a link to itself",
     in_place_of("manifest.json", lambda path: path.symlink_to(path)), "manifest.json: is a symbolic link"),
    ("a manifest that is a pipe", in_place_of("manifest.json", os.mkfifo), "manifest.json: not a plain file"),
    ("a graph that is a pipe", in_place_of("model.onnx", os.mkfifo), "model.onnx: not a plain file"),
    ("a manifest that is a folder", in_place_of("manifest.json", Path.mkdir), "manifest.json: not a plain file"),
    ("a tokenizer that is a folder", in_place_of("tokenizer.json", Path.mkdir), "tokenizer.json: not a plain file"),
    ("a file that is missing", lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: cannot be read"),
    ("a graph of a terabyte", lambda folder: os.truncate(folder / "model.onnx", 1 << 40), "bytes, manifest.json says"),
    ("a graph that was changed", flip_a_bit, "model.onnx: its sha256 is not the one in manifest.json"),
    ("a name that ends in a line break", renamed("tiny\n"), "$.name: 'tiny\\n' does not match"),
    ("a name with an escape sequence", renamed("tiny\x1b[2J"), "tiny\\x1b[2J/manifest.json: $.name"),
    ("a name with a path separator", field("name", "../tiny"), "$.name"),
    ("a name that is not the folder's", field("name", "other"), "says name 'other' but the folder is 'tiny'"),
]  # fmt: skip

LONG = "a" * 257
MANIFESTS: list[tuple[str, Break, str]] = [
    ("no JSON", lambda folder: (folder / "manifest.json").write_text("{"), "not readable JSON"),
    ("no UTF-8", lambda folder: (folder / "manifest.json").write_bytes(b'{"a": "\xff"}'), "not readable JSON"),
    ("no object", lambda folder: (folder / "manifest.json").write_text("[]"), "not a JSON object"),
    ("a million brackets", lambda folder: (folder / "manifest.json").write_text("[" * 10**6), "not readable JSON"),
    ("not a number", field("calibration.temperature", float("nan")), "not readable JSON: NaN"),
    ("a key that stands twice", written('"name": "tiny"', '"name": "tiny", "name": "tiny"'), "'name' stands twice"),
    ("a recipe with 1e999", written('"recipe": {}', '"recipe": {"a": [1, 1e999]}'), "$.compression.recipe.a[1]: num"),
    ("a recipe with 10^400", field("compression.recipe", {"a": 10**400}), "$.compression.recipe.a: numbers go up to"),
    ("an integer of 5000 digits", written('"recipe": {}', '"recipe": {"a": ' + "1" * 5000 + "}"), "not readable JSON"),
    ("a ratio of 10^400", field("compression.reached_ratio", 10**400), "$.compression.reached_ratio: numbers go up"),
    ("half a surrogate pair", field("compression.recipe", {"a": "\ud800"}), "$.compression.recipe.a: holds half"),
    ("half a surrogate pair as a key", field("compression.recipe", {"\ud800": 1}), "$.compression.recipe: a key"),
    ("a recipe of 100 levels", field("compression.recipe", nested(100)), "nested deeper than 32 levels"),
    ("an unknown field", field("surprise", 1), "unexpected"),
    ("another version of the schema", field("schema_version", 2), "$.schema_version"),
    ("a path out of the folder", field("files", {"../../x": {"bytes": 1, "sha256": "0" * 64}}), "$.files"),
    ("a default graph that is not there", field("default_file", "model.int8.onnx"), "default_file 'model.int8.onnx'"),
    ("a max_length of a billion", field("max_length", 10**9), "$.max_length: 1000000000 is greater than"),
    ("a max_length below zero", field("max_length", -1), "$.max_length"),
    ("a temperature of zero", field("calibration.temperature", 0), "$.calibration.temperature"),
    ("a temperature that makes infinities", field("calibration.temperature", 1e-300), "$.calibration.temperature"),
    ("100,000 labels", field("labels", [str(index) for index in range(100_000)]), "$.labels: ["),
    ("100,000 labels that cannot be sorted", field("labels", [1, "a"] * 50_000), "$.labels: ["),
    ("inputs that cannot be sorted", field("inputs", [1, "a"] * 50_000), "$.inputs: ["),
    ("a label that stands twice", field("labels", ["a", "a"]), "$.labels"),
    ("a label of 257 characters", field("labels", ["a", LONG]), "$.labels[1]"),
    ("a label with a line break", field("labels", ["a", "b\n"]), "$.labels[1]"),
    ("a label with an escape sequence", field("labels", ["a", "\x1b[2J"]), "$.labels[1]"),
    ("half a surrogate pair as a label", field("labels", ["a", "\ud800"]), "$.labels[1]"),
    ("a tokenizer of 200 MB", file_field("tokenizer.json", bytes=200 << 20), "$.files['tokenizer.json'].bytes"),
    ("a tokenizer that decodes to 200 MB",
     file_field("tokenizer.json", encoding="gzip", decoded_bytes=200 << 20, decoded_sha256="0" * 64),
     "$.files['tokenizer.json'].decoded_bytes"),
    ("a tokenizer that is not zipped",
     file_field("tokenizer.json", encoding="gzip", decoded_bytes=1, decoded_sha256="0" * 64),
     "tokenizer.json.gz: cannot be read"),
    ("a graph of 3 GB", file_field("model.onnx", bytes=3 << 30), "$.files['model.onnx'].bytes"),
    ("a sha256 with a line break", file_field("model.onnx", sha256="0" * 64 + "\n"), "$.files['model.onnx'].sha256"),
    ("a self-test of 17 rows",
     field("self_test", {"input_ids": [[1]] * 17, "logits": {}}), "$.self_test.input_ids: ["),
    ("a self-test of 129 tokens",
     field("self_test", {"input_ids": [[1] * 129], "logits": {}}), "$.self_test.input_ids[0]: ["),
    ("a self-test of a token that no model has",
     field("self_test", {"input_ids": [[2**31]], "logits": {}}), "$.self_test.input_ids[0][0]"),
    ("a self-test of a token below zero",
     field("self_test", {"input_ids": [[-1]], "logits": {}}), "$.self_test.input_ids[0][0]"),
    ("a latency table of 2000 rows", field("latency.table", [{}] * 2000), "$.latency.table: ["),
]  # fmt: skip


def graph(change: Callable[[onnx.ModelProto], Any]) -> Break:
    """Return what changes the fp32 graph, with sums that are right."""

    def rewrite(folder: Path) -> None:
        model = onnx.load_from_string((folder / "model.onnx").read_bytes())
        change(model)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        seal(folder)

    return rewrite


def content(file: str, data: Callable[[bytes], bytes]) -> Break:
    """Return what rewrites a file's bytes, with sums that are right."""

    def rewrite(folder: Path) -> None:
        (folder / file).write_bytes(data((folder / file).read_bytes()))
        seal(folder)

    return rewrite


def put_outside(tensor: TensorProto, location: str) -> None:
    """Make a tensor one of another file."""
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=value)


def external(location: str) -> Break:
    return graph(lambda model: put_outside(model.graph.initializer[0], location))


def constant_outside(model: onnx.ModelProto) -> None:
    """Make a constant within the branch of an If one of another file."""
    constant = helper.make_node("Constant", [], ["inner"], value=helper.make_tensor("inner", 1, [1], b"1234", raw=True))
    put_outside(constant.attribute[0].t, "weights.bin")
    add_operator(model, "If", branches(constant), ["condition"])


def sparse_outside(model: onnx.ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(helper.make_tensor("sparse", 1, [1], b"1234", raw=True))
    put_outside(sparse.values, "weights.bin")


def branches(node: onnx.NodeProto) -> dict[str, Any]:
    outputs = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    branch = helper.make_graph([node], "branch", [], outputs)
    return {"then_branch": branch, "else_branch": branch}


def add_operator(model: onnx.ModelProto, operator: str, attributes: dict[str, Any], inputs: list[str]) -> None:
    """Put an operator, whose result nothing reads, before the others."""
    condition = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(condition)
    model.graph.node.insert(0, helper.make_node(operator, inputs, ["added"], **attributes))


def endless_loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["before"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("before", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("after", TensorProto.BOOL, [])],
    )
    add_operator(model, "Loop", {"body": body}, ["", "condition"])


def functions(model: onnx.ModelProto) -> None:
    """Define functions that each call the one before twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    previous, domain = "Identity", ""
    for index in range(40):
        nodes = [
            helper.make_node(previous, ["a"], ["b"], domain=domain),
            helper.make_node(previous, ["b"], ["c"], domain=domain),
        ]
        model.functions.append(helper.make_function("own", f"f{index}", ["a"], ["c"], nodes, opsets))
        previous, domain = f"f{index}", "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.insert(0, helper.make_node(previous, ["input_ids"], ["added"], domain=domain))


def own_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.insert(0, helper.make_node("Own", ["input_ids"], ["added"], domain="own"))


def text_logits(model: onnx.ModelProto) -> None:
    """Make the graph answer with strings."""
    model.graph.node[-1].output[0] = "numbers"
    words = model.graph.initializer.add(name="words", data_type=TensorProto.STRING, dims=[1, 2])
    words.string_data.extend((b"a", b"b"))
    model.graph.node.append(helper.make_node("Identity", ["words"], ["logits"]))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING


MANY_FIELDS = b"\x3a\x84\x89\x7a" + b"\x10\x01" * 1_000_002  # a graph of a million numbers
GRAPHS: list[tuple[str, Break, str]] = [
    ("no ONNX", content("model.onnx", lambda data: b"not a graph"), "not an ONNX model"),
    ("an empty message", content("model.onnx", lambda data: b"\x08\x09"), "not an ONNX model: holds no graph"),
    ("a graph cut off", content("model.onnx", lambda data: data[:-40]), "not an ONNX model: breaks off"),
    ("a number cut off", content("model.onnx", lambda data: b"\x08\xff"), "not an ONNX model: breaks off"),
    ("a number of eleven bytes", content("model.onnx", lambda data: b"\x08" + b"\xff" * 11), "more than ten bytes"),
    ("a field number of 33 bits", content("model.onnx", lambda data: b"\xba\x80\x80\x80\x10\x00"), "without a number"),
    ("a million fields", content("model.onnx", lambda data: MANY_FIELDS), "has over 1000000 fields"),
    ("a constant in another file", graph(constant_outside), "keeps a tensor in another file"),
    ("a sparse tensor in another file", graph(sparse_outside), "keeps a tensor in another file"),
    ("a tensor at an address", external("*/_ORT_MEM_ADDR_/*"), "keeps a tensor in another file"),
    ("a loop without an end", graph(endless_loop), "operator 'Loop' runs a graph of its own"),
    ("functions that call each other", graph(functions), "defines functions of its own"),
    ("an operator of its own", graph(own_operator), "ONNX Runtime cannot load the graph"),
    ("strings as logits", graph(text_logits), "could not convert string to float"),
    ("a graph for fewer tokens",
     graph(lambda model: model.graph.initializer[1].dims.__setitem__(0, 3)), "ONNX Runtime"),
]  # fmt: skip


def tokenizer(**changes: Any) -> Break:
    """Return what changes top-level fields of the tokenizer."""
    return content("tokenizer.json", lambda data: json.dumps({**json.loads(data), **changes}).encode())


def special_tokens(number: int) -> dict[str, Any]:
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2] * number, "tokens": ["[CLS]"] * number}},
    }


ONLY_THE_SECOND = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "B", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {},
}
TOKENIZERS: list[tuple[str, Break, str]] = [
    ("no tokenizer", content("tokenizer.json", lambda data: b"{}"), "tokenizer.json"),
    ("no UTF-8", content("tokenizer.json", lambda data: b"\xff"), "tokenizer.json"),
    ("a table that makes the library panic",
     tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "tokenizers cannot load it"),
    ("a template that makes the library panic", tokenizer(post_processor=ONLY_THE_SECOND), "tokenizers cannot load it"),
    ("100,000 special tokens", tokenizer(post_processor=special_tokens(100_000)), "adds 100000 special tokens"),
    ("a token that the graph does not have",
     tokenizer(post_processor=special_tokens(0) | {"special_tokens": {"[CLS]": {
         "id": "[CLS]", "ids": [4_000_000_000], "tokens": ["[CLS]"]}}}), "ONNX Runtime"),
    ("brackets without end",
     content("tokenizer.json", lambda data: b'{"normalizer": ' + b'{"type": "Sequence", "normalizers": [' * 10**5),
     "recursion limit"),
]  # fmt: skip

ATTACKS = [*FOLDERS, *MANIFESTS, *GRAPHS, *TOKENIZERS]


@pytest.mark.parametrize(("attack", "words"), [attack[1:] for attack in ATTACKS], ids=[attack[0] for attack in ATTACKS])
def test_a_bad_artefact_is_refused_in_one_line(models_folder: Path, attack: Break, words: str) -> None:
    attack(write_artefact(models_folder))
    line = refusal(models_folder)
    assert words in line
    assert line.startswith(str(models_folder / "tiny"))


def test_an_error_that_is_no_text_is_refused_without_a_word_of_the_runtime(
    models_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content("model.onnx", lambda data: b"\xf5mbedded".join(data.rsplit(b"embedded", 1)))(write_artefact(models_folder))
    assert "ONNX Runtime cannot load the graph" in refusal(models_folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["working folder", "artefact", "absolute", "above"])
def test_a_tensor_in_another_file_is_never_read(
    models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = write_artefact(models_folder)
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    weights = {
        "working folder": working / "weights.bin",
        "artefact": folder / "weights.bin",
        "absolute": tmp_path / "weights.bin",
        "above": tmp_path / "weights.bin",
    }[place]
    location = {"absolute": str(weights), "above": "../weights.bin"}.get(place, "weights.bin")
    weights.write_bytes(onnx.load_from_string((folder / "model.onnx").read_bytes()).graph.initializer[0].raw_data)
    external(location)(folder)
    assert "keeps a tensor in another file, which is never read; save the graph as one file" in refusal(models_folder)


def test_a_branch_and_a_constant_of_a_graph_are_fine(models_folder: Path) -> None:
    folder = write_artefact(models_folder)
    constant = helper.make_node("Constant", [], ["inner"], value=helper.make_tensor("inner", 1, [1], b"1234", raw=True))
    graph(lambda model: add_operator(model, "If", branches(constant), ["condition"]))(folder)
    load(models_folder)


def test_a_schema_that_the_folder_brings_is_ignored(models_folder: Path) -> None:
    write_artefact(models_folder)
    schema = {"$ref": "http://127.0.0.1:9/never-fetched.json", "patternProperties": {"^(a+)+$": False}}
    for place in (models_folder, models_folder / "tiny"):
        (place / "manifest.schema.json").write_text(json.dumps(schema))
    load(models_folder)


def test_a_manifest_of_200_mb_is_not_read(models_folder: Path) -> None:
    folder = write_artefact(models_folder)
    os.truncate(folder / "manifest.json", 200 << 20)
    tracemalloc.start()
    line = refusal(models_folder)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "manifest.json: has over 1048576 bytes" in line
    assert peak_bytes < 4 << 20


def test_a_graph_that_grows_after_the_check_is_not_read_on(models_folder: Path) -> None:
    artefact = read_artefact(write_artefact(models_folder))
    os.truncate(artefact.folder / "model.onnx", 200 << 20)
    tracemalloc.start()
    with pytest.raises(ArtefactError, match=r"model\.onnx: has over \d+ bytes"):
        artefact.read("model.onnx")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_a_label_may_be_any_text(models_folder: Path) -> None:
    write_artefact(models_folder, labels=("très bien 🙂", "名" * 256))
    load(models_folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file; run the tests as another user")
@pytest.mark.parametrize("place", ["", "tiny", "tiny/manifest.json", "tiny/model.onnx"])
def test_what_may_not_be_read_is_one_line(models_folder: Path, place: str) -> None:
    write_artefact(models_folder)
    path = models_folder / place
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        assert "cannot be read: Permission denied" in refusal(models_folder)
    finally:
        path.chmod(mode)


def test_the_command_says_it_in_one_line(models_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_artefact(models_folder)
    link_the_folder(folder)
    assert main(["check", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("tiny: is a symbolic link; put the folder itself there")


def test_every_place_where_onnx_keeps_a_tensor_is_walked() -> None:
    messages: dict[str, Any] = {
        "model": onnx.ModelProto,
        "graph": onnx.GraphProto,
        "node": onnx.NodeProto,
        "attribute": onnx.AttributeProto,
        "sparse tensor": onnx.SparseTensorProto,
        "tensor": onnx.TensorProto,
    }
    kinds = {message.DESCRIPTOR.name: kind for kind, message in messages.items()}
    found = {
        kind: {
            field.number: kinds[field.message_type.name]
            for field in message.DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.name in kinds
        }
        for kind, message in messages.items()
    }
    assert found == CHILDREN
    number = {kind: message.DESCRIPTOR.fields_by_name for kind, message in messages.items()}
    assert (number["model"]["functions"].number, number["node"]["op_type"].number) == (FUNCTIONS, OP_TYPE)
    assert number["tensor"]["external_data"].number == EXTERNAL_DATA
    assert number["tensor"]["data_location"].number == DATA_LOCATION
