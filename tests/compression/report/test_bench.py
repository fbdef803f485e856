import json
from pathlib import Path

import pytest

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.cli.main import main
from ladabert_compress.errors import OptionError
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.report.bench import Subject, bench, format_bench
from ladabert_compress.report.plots import plot_bench
from ladabert_compress.report.standard_tools import standard_graph
from ladabert_compress.training.run import CompressionResult
from tests.compression.conftest import models_folder

pytestmark = pytest.mark.slow


def test_artefact_teacher_and_standard_tools_are_timed_in_one_run(
    result: CompressionResult,
    teacher_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = models_folder(tmp_path)
    export_artefact(result, models / "tiny", data_set="tiny")
    monkeypatch.chdir(tmp_path)
    arguments = ["--teacher", str(teacher_folder), "--standard-tools", "run", "--shapes", "1x4,2x8", "--repeats", "2"]
    main(["bench", "models/tiny", *arguments, "--profile", "--json", "figures.json", "--plot", "plot.svg"])
    printed = capsys.readouterr().out
    figures = json.loads(Path("figures.json").read_text(encoding="utf-8"))
    names = ["tiny PyTorch", "tiny fp32 usual fusions", "run int8 standard tools", "tiny int8", "tiny fp32"]
    assert sorted({row["name"] for row in figures["table"]}) == sorted(names)
    assert figures["baseline"] == "tiny PyTorch"
    assert all(row["median_ms"] > 0 for row in figures["table"])
    assert {row["times_baseline"] for row in figures["table"] if row["name"] == "tiny PyTorch"} == {1.0}
    operators = {entry["operator"] for profile in figures["profiles"] for entry in profile["operators"]}
    assert {"MatMulIntegerToFloat", "SkipLayerNormalization", "LayerNormalization"} <= operators
    assert all(name in printed for name in names)
    assert Path("plot.svg").read_text(encoding="utf-8").startswith("<svg")
    assert plot_bench(figures).count("<svg") == 1
    assert format_bench(figures) in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to measure"),
        (["nowhere"], "nowhere: neither an artefact's folder nor an .onnx file"),
        (["x.onnx"], "x.onnx: ONNX Runtime cannot load it"),
        (["--shapes", "1x"], "'1x': expected texts x tokens"),
        (["--shapes", "0x4"], "'0x4': expected texts x tokens"),
        (["x.onnx", "--json", "none/f.json"], "--json: none: no such folder"),
        (["x.onnx", "--plot", "none/f.svg"], "--plot: none: no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.onnx").write_bytes(b"no graph")
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_baseline_that_is_not_measured_and_a_text_that_is_too_long_are_refused(
    result: CompressionResult,
) -> None:
    session = OnnxSession(standard_graph(result.student.model, "single", int8=False).SerializeToString(), fuse=True)
    subject = Subject("student", session, None, 16)
    with pytest.raises(OptionError, match="--baseline: 'other' is not measured; there are 'student'"):
        bench([subject], [(1, 4)], baseline="other")
    with pytest.raises(OptionError, match="32 tokens are over the 16 of student"):
        bench([subject], [(1, 32)])
    with pytest.raises(OptionError, match="two of what is to be measured are called 'student'"):
        bench([subject, subject], [(1, 4)])
