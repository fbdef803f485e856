"""Both halves: a tiny teacher is compressed, exported, and served; the answers are PyTorch's."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import torch

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.saved import load_student
from ladabert_compress.training.run import compress
from ladabert_serve.app import create_app
from ladabert_serve.settings import Settings
from tests.compression.conftest import (  # noqa: F401 - fixtures
    labelled_texts,
    models_folder,
    taught_bert,
    teacher_folder,
    tiny_bert,
    tiny_recipe,
    tokenizer,
)


@pytest.mark.parametrize(
    ("precision", "words"), [("fp32", None), ("int8", None), ("fp32", ())], ids=["fp32", "int8", "trimmed"]
)
def test_a_served_student_answers_as_in_pytorch(
    precision: str,
    words: tuple[str, ...] | None,
    teacher_folder: Path,  # noqa: F811
    tiny_recipe: Recipe,  # noqa: F811
    tmp_path: Path,
) -> None:
    texts = labelled_texts(40)
    result = compress(teacher_folder, tiny_recipe, labelled_texts(64), texts, tmp_path / "run")
    models = models_folder(tmp_path)
    manifest = export_artefact(result, models / "tiny", data_set="tiny", precisions=(precision,), words=words)
    assert ("vocabulary" in manifest["compression"]) == (words is not None)
    assert (models / "tiny" / "README.md").is_file()  # for people; a server leaves it alone
    logits = predict_logits(load_student(tmp_path / "run"), result.dev_data, torch.device("cpu"))
    expected = (logits / manifest["calibration"]["temperature"]).softmax(dim=1)

    async def ask() -> list[dict[str, object]]:
        app = create_app(Settings(models=models))
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            response = await client.post("/classify", json={"inputs": list(texts.texts)})
            assert response.status_code == 200
            predictions: list[dict[str, object]] = response.json()["predictions"]
            return predictions

    import anyio

    served = anyio.run(ask)
    tolerance = 1e-4 if precision == "fp32" else 0.1
    for prediction, probabilities in zip(served, expected, strict=True):
        assert prediction["score"] == pytest.approx(float(probabilities.max()), abs=tolerance)
        if precision == "fp32":
            assert prediction["label"] == ("negative", "positive")[int(probabilities.argmax())]
