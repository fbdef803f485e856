"""`python -m ladabert_serve` is `ladabert-serve`."""

import sys

from ladabert_serve.cli import main

if __name__ == "__main__":
    sys.exit(main())
