"""A FastAPI route with ONNX Runtime, the way most people write it: pydantic in and out, one session, all cores."""

import os

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

from benchmarks.serving.peers import parse


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    label: str
    score: float


def main() -> None:
    options = parse(__doc__)
    tokenizer = Tokenizer.from_file(options.tokenizer)
    tokenizer.enable_truncation(options.max_length)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(options.model, session_options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/classify")
    def classify(question: Question) -> Answer:
        encoding = tokenizer.encode(question.text)
        feeds = {"input_ids": np.array([encoding.ids]), "attention_mask": np.array([encoding.attention_mask])}
        logits = session.run(None, feeds)[0][0]
        powers = np.exp(logits - logits.max())
        best = int(logits.argmax())
        return Answer(label=options.labels[best], score=float(powers[best] / powers.sum()))

    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
