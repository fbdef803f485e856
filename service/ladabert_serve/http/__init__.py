"""One HTTP request: its body, bounds, deadline, problem answers and documentation; may import models and below."""
