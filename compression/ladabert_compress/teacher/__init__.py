"""A teacher's folder, and whether the teacher knows its task; may import ``student`` and below."""
