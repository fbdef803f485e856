"""LitServe with ONNX Runtime: batches of up to 32 that wait for 5 ms. Runs in an environment of its own."""

import argparse
import os
from typing import Any

import litserve
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from benchmarks.serving.peers import parse

BATCH_SIZE = 32
BATCH_TIMEOUT_S = 0.005


class Classifier(litserve.LitAPI):  # type: ignore[misc]  # litserve is not installed where types are checked
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S)
        self.options = options

    def setup(self, device: Any) -> None:  # noqa: ARG002 - the library's signature
        self.tokenizer = Tokenizer.from_file(self.options.tokenizer)
        self.tokenizer.enable_truncation(self.options.max_length)
        self.tokenizer.enable_padding()
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = len(os.sched_getaffinity(0))
        self.session = onnxruntime.InferenceSession(self.options.model, settings, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        encodings = self.tokenizer.encode_batch(texts)
        feeds = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
        }
        logits = self.session.run(None, feeds)[0]  # (B, labels)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
        best = scores.argmax(axis=1)
        labels = self.options.labels
        return [{"label": labels[label], "score": float(row[label])} for label, row in zip(best, scores, strict=True)]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


def main() -> None:
    options = parse(__doc__)
    server = litserve.LitServer(Classifier(options), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
