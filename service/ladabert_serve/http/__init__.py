"""One HTTP request: body, bounds, deadline, errors, log line, trace and documentation; may import models and below."""
