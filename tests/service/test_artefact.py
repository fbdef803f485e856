"""Claims about reading an artefact: what does not match is refused with one line."""

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from ladabert_serve.backends.onnx_runtime import load_onnx_backend
from ladabert_serve.errors import ArtefactError, ProviderError, StartError
from ladabert_serve.models.artefact import Artefact, find_artefacts, read_artefact
from ladabert_serve.models.loading import load_inference, try_artefact
from ladabert_serve.models.naming import choose_default
from ladabert_serve.models.repository import read_artefacts
from ladabert_serve.models.stored_file import gunzip
from ladabert_serve.settings import Settings
from tests.service.tiny_artefact import change_manifest, seal, write_artefact


def test_a_whole_artefact_is_read(models_folder: Path) -> None:
    artefact = read_artefact(write_artefact(models_folder, precisions=("int8", "fp32")))
    assert (artefact.name, artefact.labels, artefact.temperature) == ("tiny", ("NEGATIVE", "POSITIVE"), 1.0)
    assert artefact.graph_file("auto") == artefact.graph_file("int8") == "model.int8.onnx"
    assert artefact.graph_file("fp32") == "model.onnx"


def test_a_precision_that_is_not_there_is_refused(models_folder: Path) -> None:
    with pytest.raises(ArtefactError, match="int8"):
        read_artefact(write_artefact(models_folder)).graph_file("int8")


def flip_a_bit(folder: Path) -> None:
    path = folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_file_that_changes_after_the_check_is_not_loaded(models_folder: Path) -> None:
    artefact = read_artefact(write_artefact(models_folder))
    flip_a_bit(artefact.folder)
    with pytest.raises(ArtefactError, match="sha256"):
        artefact.read("model.onnx")


def test_hidden_folders_and_folders_without_manifest_are_left_out(models_folder: Path) -> None:
    folder = write_artefact(models_folder)
    (models_folder / "notes").mkdir()
    write_artefact(models_folder / ".being-written")
    assert find_artefacts(models_folder) == [folder]


def test_a_folder_without_artefacts_is_refused(models_folder: Path) -> None:
    with pytest.raises(ArtefactError, match="no artefact"):
        read_artefacts(Settings(models=models_folder))
    with pytest.raises(ArtefactError, match="no such folder"):
        read_artefacts(Settings(models=models_folder / "nope"))


def test_the_default_model_is_the_first_for_single_texts_unless_it_is_set(models_folder: Path) -> None:
    write_artefact(models_folder, "zeta")
    write_artefact(models_folder, "beta")
    write_artefact(models_folder, "alpha", task="pair")  # it would refuse a request for one text
    settings = Settings(models=models_folder)
    artefacts = read_artefacts(settings)
    assert choose_default(settings, artefacts) == "beta"
    assert choose_default(Settings(models=models_folder, default_model="zeta"), artefacts) == "zeta"
    with pytest.raises(StartError, match="'gamma'"):
        choose_default(Settings(models=models_folder, default_model="gamma"), artefacts)


def reseal(folder: Path, **changes: Any) -> Artefact:
    change_manifest(folder, **changes)
    seal(folder)
    return read_artefact(folder)


def test_a_graph_with_other_inputs_than_the_manifest_says_is_refused(models_folder: Path) -> None:
    folder = write_artefact(models_folder)
    artefact = reseal(folder, inputs=["input_ids", "attention_mask", "token_type_ids"])
    with pytest.raises(ArtefactError, match="token_type_ids"):
        load_inference(artefact, "model.onnx", "cpu")


def test_a_graph_with_another_number_of_labels_is_refused(models_folder: Path) -> None:
    artefact = reseal(write_artefact(models_folder), labels=["a", "b", "c"])
    with pytest.raises(ArtefactError, match="shape"):
        try_artefact(artefact)


def test_cuda_where_there_is_none_fails_with_the_reason_and_auto_falls_back(models_folder: Path) -> None:
    artefact = read_artefact(write_artefact(models_folder))
    graph = artefact.read("model.onnx")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this build of ONNX Runtime has a CUDA provider")
    with pytest.raises(ProviderError, match="cuda was asked for"):
        load_onnx_backend(graph, artefact.inputs, artefact.output, "cuda")
    assert load_onnx_backend(graph, artefact.inputs, artefact.output, "auto").provider == "cpu"


def test_the_manifest_of_the_fixture_is_what_the_schema_wants(models_folder: Path) -> None:
    folder = write_artefact(models_folder, task="pair")
    assert json.loads((folder / "manifest.json").read_text()) == read_artefact(folder).manifest


def zip_graph(folder: Path, content: bytes | None = None) -> Artefact:
    """Store the fp32 graph as gzip, with the true sums of what lies on disk."""
    plain = folder / "model.onnx"
    packed = gzip.compress(plain.read_bytes(), mtime=0) if content is None else content
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.onnx"] |= {
        "bytes": len(packed),
        "sha256": hashlib.sha256(packed).hexdigest(),
        "encoding": "gzip",
        "decoded_bytes": plain.stat().st_size,
        "decoded_sha256": hashlib.sha256(plain.read_bytes()).hexdigest(),
    }
    (folder / "model.onnx.gz").write_bytes(packed)
    change_manifest(folder, files=manifest["files"])
    return read_artefact(folder)


def test_a_zipped_graph_is_read_as_the_plain_one(models_folder: Path) -> None:
    folder = write_artefact(models_folder)
    content = (folder / "model.onnx").read_bytes()
    artefact = zip_graph(folder)
    (folder / "model.onnx").unlink()
    assert artefact.read("model.onnx") == content
    try_artefact(artefact)


BAD_ZIPS: dict[str, Callable[[bytes], bytes]] = {
    "not gzip": lambda content: content,
    "breaks off": lambda content: gzip.compress(content)[:-20],
    "breaks off after 0": lambda content: b"",
    "more than": lambda content: gzip.compress(content + bytes(1 << 20)),
    "decodes to": lambda content: gzip.compress(content[:-1]),
    "more follow": lambda content: gzip.compress(content) + b"tail",
    "sha256 of what it decodes to": lambda content: gzip.compress(content[::-1]),
}


@pytest.mark.parametrize("message", list(BAD_ZIPS))
def test_a_zipped_graph_that_does_not_decode_to_its_content_is_refused(models_folder: Path, message: str) -> None:
    folder = write_artefact(models_folder)
    content = BAD_ZIPS[message]((folder / "model.onnx").read_bytes()) or b"\x1f\x8b"
    artefact = zip_graph(folder, content)
    with pytest.raises(ArtefactError, match=message) as raised:
        artefact.read("model.onnx")
    assert "\n" not in str(raised.value)
    assert str(folder / "model.onnx.gz") in str(raised.value)


def test_a_bomb_is_not_decoded_beyond_what_the_manifest_says() -> None:
    bomb = gzip.compress(bytes(1 << 28))
    tracemalloc.start()
    with pytest.raises(ArtefactError, match="more than the 1000 bytes"):
        gunzip(bomb, 1000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


@pytest.mark.parametrize("missing", ["encoding", "decoded_bytes", "decoded_sha256"])
def test_an_encoding_is_said_in_full_or_not_at_all(models_folder: Path, missing: str) -> None:
    folder = write_artefact(models_folder)
    files = zip_graph(folder).manifest["files"]
    del files["model.onnx"][missing]
    change_manifest(folder, files=files)
    with pytest.raises(ArtefactError, match="depend"):
        read_artefact(folder)
