"""A FastAPI route with `transformers.pipeline` on PyTorch."""

import uvicorn
from fastapi import FastAPI
from transformers import pipeline

from benchmarks.serving.peers import parse
from benchmarks.serving.peers.fastapi_onnx import Answer, Question


def main() -> None:
    options = parse(__doc__)
    classifier = pipeline("text-classification", model=options.model, device="cpu")
    app = FastAPI()

    @app.post("/classify")
    def classify(question: Question) -> Answer:
        best = classifier(question.text, truncation=True, max_length=options.max_length)[0]
        return Answer(label=best["label"], score=best["score"])

    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
