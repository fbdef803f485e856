"""From a student to the folder that the service loads: export, checks, files; may import ``graph`` and below."""
