"""Sends labelled rows to a running server and compares its answers with the labels and with PyTorch's student.

python -m benchmarks.serving.accuracy_over_http --url http://127.0.0.1:8000 --model NAME --data dev.tsv \
    [--student runs/NAME] [--teacher DIR] [--json F]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from compression.artefact import read_manifest, read_tokenizer
from compression.batches import encode
from compression.data import LabelledTexts, label_ids_of, read_labelled_texts
from compression.student import load_student
from compression.teacher import load_teacher
from compression.training import predict_logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", type=Path, default=Path("models"), help="the server's folder, for the tokenizer")
    parser.add_argument("--student", type=Path, help="folder of the compress run with the PyTorch student")
    parser.add_argument("--teacher", type=Path, help="folder of the teacher")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    data = read_labelled_texts(options.data)
    with httpx.Client(base_url=options.url, timeout=60) as client:
        manifest = client.get(f"/models/{options.model}").raise_for_status().json()
        manifest = manifest.get("manifest", manifest)
        answers = ask(client, options.model, data)
    labels = manifest["labels"]
    truth = np.array(label_ids_of(options.data, data, labels))
    served = np.array([labels.index(answer["label"]) for answer in answers])
    figures: dict[str, Any] = {
        "model": options.model,
        "version": manifest["version"],
        "rows": len(data),
        "accuracy": float((served == truth).mean()),
    }
    if options.student is not None:
        folder = options.models / options.model
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=read_tokenizer(folder, read_manifest(folder)))
        encoded = encode(data, truth.tolist(), tokenizer, manifest["max_length"])
        student = predict_logits(load_student(options.student), encoded, torch.device("cpu"))
        probabilities = (student / manifest["calibration"]["temperature"]).softmax(dim=1).numpy()
        scores = np.array([{s["label"]: s["score"] for s in answer["scores"]}[labels[0]] for answer in answers])
        figures["pytorch_student_accuracy"] = float((probabilities.argmax(axis=1) == truth).mean())
        figures["same_label_as_pytorch"] = float((probabilities.argmax(axis=1) == served).mean())
        figures["largest_score_difference"] = float(np.abs(probabilities[:, 0] - scores).max())
    if options.teacher is not None:
        teacher = load_teacher(options.teacher)
        encoded = encode(data, truth.tolist(), teacher.tokenizer, manifest["max_length"])
        predicted = predict_logits(teacher.model, encoded, torch.device("cpu")).argmax(dim=1).numpy()
        figures["teacher_accuracy"] = float((predicted == truth).mean())
        figures["share_of_the_teachers_accuracy"] = figures["accuracy"] / figures["teacher_accuracy"]
    for name, value in figures.items():
        print(f"{name:<32} {value:.4f}" if isinstance(value, float) else f"{name:<32} {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def ask(client: httpx.Client, model: str, data: LabelledTexts) -> Sequence[dict[str, Any]]:
    """The server's prediction for each row, one row a request, as a caller would send it."""
    predictions = []
    for row in tqdm(range(len(data)), desc="classify", unit="row"):
        text = data.texts[row]
        inputs = text if data.pairs is None else {"text": text, "text_pair": data.pairs[row]}
        response = client.post("/classify", json={"inputs": inputs, "model": model}).raise_for_status()
        predictions.append(response.json()["predictions"][0])
    return predictions


if __name__ == "__main__":
    main()
