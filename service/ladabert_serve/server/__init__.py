"""Listens, and ends: uvicorn's server, its connections, worker processes and signals; may import every other room."""
