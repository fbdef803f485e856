"""Claims about how graphs lie on disk: smaller where that pays, the same content always."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.packing import pack
from ladabert_compress.artefact.reading import read_graph, read_manifest
from ladabert_compress.artefact.stored_file import is_stored, read_stored, store
from ladabert_compress.cli.main import main
from ladabert_compress.errors import ExportError
from ladabert_compress.recipe import Recipe
from ladabert_compress.training.run import CompressionResult, compress
from tests.compression.conftest import labelled_texts, models_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def result(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> CompressionResult:
    return compress(teacher_folder, tiny_recipe, labelled_texts(64), labelled_texts(40), tmp_path / "run")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return models_folder(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_packing_changes_how_a_graph_is_stored_and_nothing_else(result: CompressionResult, models: Path) -> None:
    folder = models / "tiny"
    export_artefact(result, folder, data_set="tiny")
    plain = pack(folder, plain=True)
    assert names(folder) == ["README.md", "manifest.json", "model.int8.onnx", "model.onnx", "tokenizer.json"]
    content = {name: (folder / name).read_bytes() for name in plain["files"]}
    packed = pack(folder)
    assert names(folder) == ["README.md", "manifest.json", "model.int8.onnx.gz", "model.onnx.gz", "tokenizer.json.gz"]
    assert read_manifest(folder) == packed
    for name in ("model.onnx", "model.int8.onnx"):
        assert read_graph(folder, packed, name) == content[name]
        assert packed["files"][name]["bytes"] == (folder / f"{name}.gz").stat().st_size < len(content[name])
    assert packed["compression"]["stored_bytes"] == packed["files"][packed["default_file"]]["bytes"]
    assert packed["version"] == plain["version"]
    assert pack(folder, plain=True) == plain
    assert pack(folder) == packed
    assert names(models) == ["tiny"]


def test_what_does_not_get_smaller_stays_plain(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(10000)
    assert store(tmp_path, "model.onnx", noise) == store(tmp_path, "model.onnx", noise, plain=True)
    assert names(tmp_path) == ["model.onnx"]


@given(content=st.binary(max_size=2000), zeros=st.integers(0, 5000), plain=st.booleans())
def test_what_is_stored_is_read_back(content: bytes, zeros: int, plain: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        data = content + bytes(zeros)
        entry = store(Path(temporary), "model.onnx", data, plain=plain)
        assert is_stored(Path(temporary), "model.onnx", entry)
        assert read_stored(Path(temporary), "model.onnx", entry) == data


def test_a_packed_graph_that_does_not_decode_to_its_content_is_refused(tmp_path: Path) -> None:
    entry = store(tmp_path, "model.onnx", bytes(10000))
    for broken in ({"decoded_bytes": 9999}, {"decoded_sha256": "0" * 64}):
        with pytest.raises(ExportError, match=r"model\.onnx\.gz: its content"):
            read_stored(tmp_path, "model.onnx", {**entry, **broken})
    (tmp_path / "model.onnx.gz").write_bytes(b"no")
    assert not is_stored(tmp_path, "model.onnx", entry)
    with pytest.raises(ExportError, match="not gzip"):
        read_stored(tmp_path, "model.onnx", entry)


def test_packing_that_breaks_off_leaves_the_artefact_as_it_was(
    result: CompressionResult, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models / "tiny"
    export_artefact(result, folder, data_set="tiny")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ladabert_compress.artefact.packing.store", full)
    with pytest.raises(ExportError, match="No space left on device"):
        pack(folder, plain=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert names(models) == ["tiny"]


def test_the_command_says_what_it_saved(
    result: CompressionResult, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_artefact(result, models / "tiny", data_set="tiny")
    main(["pack", "--plain", str(models / "tiny")])
    assert "model.int8.onnx: " in capsys.readouterr().out
    assert "encoding" not in read_manifest(models / "tiny")["files"]["model.int8.onnx"]


def test_a_folder_that_is_no_artefact_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["pack", str(tmp_path)])
    assert raised.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
