"""One file a route or dialect: it decodes a request, asks a model and encodes the answer; may import http and below."""
