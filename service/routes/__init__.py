"""HTTP routes, one module per group: each turns a request into a call of the core."""
