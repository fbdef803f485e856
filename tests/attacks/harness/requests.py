"""Requests as bytes."""

import json
from typing import Any


def post(body: bytes, path: str = "/classify", version: str = "1.1", **headers: str | None) -> bytes:
    """A POST of a body; in header names, _ stands for -, and None leaves a header out."""
    fields = {"host": "x", "content_type": "application/json", "content_length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value is not None]
    return f"POST {path} HTTP/{version}\r\n{''.join(lines)}\r\n".encode("latin-1") + body


def ask_for(inputs: Any, **fields: Any) -> bytes:
    """The body that asks for inputs."""
    return json.dumps({"inputs": inputs, **fields}).encode()


def get(path: str, method: str = "GET", **headers: str) -> bytes:
    """A request without a body."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in {"host": "x", **headers}.items()]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")
