"""Other people's ways of serving the same graph, each the way that its documentation shows, some in other environments.

They import nothing of ours but this.
"""

import argparse


def parse(about: str | None) -> argparse.Namespace:
    """Return what every one of them is told."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", required=True, help="ONNX file, or PyTorch's folder")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--labels", required=True, nargs="+")
    parser.add_argument("--max-length", required=True, type=int)
    parser.add_argument("--port", required=True, type=int)
    return parser.parse_args()
