import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import BertForSequenceClassification

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.cli.main import main
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import DataError, OptionError
from ladabert_compress.measure.predictions import confusion
from ladabert_compress.recipe import Recipe
from ladabert_compress.report.page import layer_table, other_matrices, write_report
from ladabert_compress.report.students import Measured
from ladabert_compress.student.saved import read_matrices
from ladabert_compress.training.run import compress
from tests.compression.conftest import labelled_texts, models_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def student(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a run and of its artefact, both named tiny."""
    run, artefact = tmp_path / "runs" / "tiny", models_folder(tmp_path) / "tiny"
    result = compress(teacher_folder, tiny_recipe, labelled_texts(64), labelled_texts(40), run)
    export_artefact(result, artefact, data_set="tiny", precisions=("fp32",))
    return run, artefact


def test_the_page_shows_the_run_and_loads_nothing(
    student: tuple[Path, Path], teacher_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, artefact = student
    texts = labelled_texts(12)
    lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in zip(texts.texts, texts.labels, strict=True))]
    lines.append("<script>alert('film')</script> & good\tpositive")
    (tmp_path / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "page.html"
    options = ["--data", str(tmp_path / "rows.tsv"), "--teacher", str(teacher_folder), "--out", str(out)]
    main(["report", str(run), str(artefact), *options])
    page = out.read_text(encoding="utf-8")
    for heading in ("What accuracy costs", "Learning curves", "Ranks and non-zeros per layer", "differs most"):
        assert heading in page
    assert page.count("<svg") == 5  # size, latency, accuracies, losses, reliability
    assert "tiny (teacher)" in page
    assert "&lt;script&gt;alert(&#39;film&#39;)&lt;/script&gt; &amp; good" in page
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)|@import|url\((?!#)""", page)
    manifest = json.loads((artefact / "manifest.json").read_text(encoding="utf-8"))
    assert f"{manifest['compression']['nonzero_parameters']:,}" in page


def test_a_run_alone_shows_what_it_stored_of_dev(student: tuple[Path, Path], tmp_path: Path) -> None:
    write_report([student[0]], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "40 rows of dev in PyTorch" in page
    assert page.count("<svg") == 3


def test_an_artefact_alone_is_placed_by_what_its_manifest_says(student: tuple[Path, Path], tmp_path: Path) -> None:
    write_report([student[1]], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "each as its manifest says" in page
    assert "Learning curves" not in page


def test_layers_add_up_to_the_students_matrices(student: tuple[Path, Path], tiny_recipe: Recipe) -> None:
    layers = read_matrices(student[0])
    assert [name for name, _ in layer_table(layers)] == ["layer 1", "layer 2"]
    assert all(matrix is not None for _, matrices in layer_table(layers) for matrix in matrices)
    assert {matrix.name.rpartition(".")[2] for matrix in other_matrices(layers)} == {
        "dense",
        "position_embeddings",
        "word_embeddings",
    }
    for matrix in other_matrices(layers):
        if matrix.name.endswith("embeddings"):
            assert matrix.kept == pytest.approx(tiny_recipe.budget.p_embedding, abs=0.01)


def test_a_teacher_that_an_artefact_was_not_made_of_is_refused(
    student: tuple[Path, Path], tiny_bert: BertForSequenceClassification, teacher_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    write_report(student, out, teacher_folder=teacher_folder)
    out.unlink()
    tiny_bert.save_pretrained(teacher_folder)  # the same shape, other weights
    with pytest.raises(OptionError, match=r"tiny was made of another teacher, tiny with .* whose weights differ"):
        write_report(student, out, teacher_folder=teacher_folder)
    assert not out.exists()


def test_the_teachers_labels_may_have_got_other_names_since(
    student: tuple[Path, Path], teacher_folder: Path, tmp_path: Path
) -> None:
    config = json.loads((teacher_folder / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    (teacher_folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_report(student, tmp_path / "page.html", texts=labelled_texts(12), teacher_folder=teacher_folder)
    assert "LABEL_0" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_is_neither_run_nor_artefact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"has neither history.json of a run nor manifest.json of an artefact"):
        write_report([tmp_path], tmp_path / "page.html")
    with pytest.raises(OptionError, match=r"--out: .*nowhere: no such folder"):
        write_report([tmp_path], tmp_path / "nowhere" / "page.html")


def test_an_adopted_model_is_refused(student: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "adopted"
    shutil.copytree(student[1], folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["compression"]["method"] = "none"
    left = {key: value for key, value in manifest.items() if key not in ("teacher", "evaluation", "latency")}
    (folder / "manifest.json").write_text(json.dumps(left), encoding="utf-8")
    with pytest.raises(OptionError, match="adopted: was adopted, not compressed; a report is about students"):
        write_report([folder], tmp_path / "page.html")


def test_a_history_of_an_older_version_is_refused(student: tuple[Path, Path], tmp_path: Path) -> None:
    file = student[0] / "history.json"
    history = json.loads(file.read_text(encoding="utf-8"))
    del history["dev"]["counts"]
    file.write_text(json.dumps(history), encoding="utf-8")
    with pytest.raises(OptionError, match=r"history\.json: an older version wrote it; run compress anew"):
        write_report([student[0]], tmp_path / "page.html")


def test_confusion_counts_the_pairs_of_label_and_prediction_that_occur() -> None:
    pairs = confusion(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]), 3000)
    assert pairs == [[0, 0, 2], [0, 1, 1], [1, 1, 1]]
    multi_label = confusion(np.array([[1, 0], [1, 1]]), np.array([[1, 1], [0, 1]]), 2)
    assert multi_label == [[1, 1, 0, 0], [1, 0, 1, 0]]


def test_few_labels_make_a_matrix_and_thousands_a_list_of_the_most_frequent_mistakes() -> None:
    pairs = [[0, 0, 2], [0, 1, 1], [1, 0, 4]]
    few = Measured(["good", "bad", "neither"], False, 7, pairs, [], None)
    assert few.matrix == [[2, 1, 0], [4, 0, 0], [0, 0, 0]]
    many = Measured([f"class {number}" for number in range(3000)], False, 7, pairs, [], None)
    assert many.matrix is None
    assert many.mistakes == [("class 1", "class 0", 4), ("class 0", "class 1", 1)]


def test_rows_of_another_task_are_refused(student: tuple[Path, Path], tmp_path: Path) -> None:
    texts = labelled_texts(8)
    pairs = LabelledTexts(texts.texts, texts.texts, texts.labels)
    with pytest.raises(DataError, match=r"--data: is a pair task, .* is a single model"):
        write_report([student[1]], tmp_path / "page.html", texts=pairs)
