"""One log line per request to an inference route, when asked for."""

import logging
from typing import Any

from ladabert_serve.http.call import Call
from ladabert_serve.models.tokenizer import TextInput

logger = logging.getLogger(__name__)


def log_call(call: Call, status: int, texts: bool) -> None:
    """Write the line of one request: its id, status and milliseconds; what was asked only if `texts`."""
    fields: dict[str, Any] = {
        "request_id": call.request_id,
        "client": call.client,
        "route": call.path,
        "model": call.model,
        "status": status,
        "total_ms": round(call.elapsed_s * 1000, 3),
    }
    if call.key is not None:
        fields["key"] = call.key.name
    if call.tickets:
        inputs = call.tickets[0].request.inputs
        fields["inputs"] = len(inputs)
        for name, begin, end in call.steps():
            fields[f"{name}_ms"] = round(fields.get(f"{name}_ms", 0) + (end - begin) * 1000, 3)
        if texts:
            texts_of = [value for value in inputs if isinstance(value, TextInput)]
            fields["texts"] = [list(value) for value in texts_of]
    logger.info("answered", extra={"fields": fields})
