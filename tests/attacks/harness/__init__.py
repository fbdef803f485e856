"""What all attacks share: a server process, raw connections, a prober of other callers, and the judge."""
