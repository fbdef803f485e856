"""What all tests share."""

from hypothesis import settings

# Time is measured in benchmarks/: an example that takes long on a busy machine says nothing about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
