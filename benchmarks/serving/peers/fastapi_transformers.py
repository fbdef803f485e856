"""A FastAPI route with `transformers.pipeline` on PyTorch."""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    label: str
    score: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-length", required=True, type=int)
    parser.add_argument("--port", required=True, type=int)
    options = parser.parse_args()

    classifier = pipeline("text-classification", model=options.model, device="cpu")
    app = FastAPI()

    @app.post("/classify")
    def classify(question: Question) -> Answer:
        best = classifier(question.text, truncation=True, max_length=options.max_length)[0]
        return Answer(label=best["label"], score=best["score"])

    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
