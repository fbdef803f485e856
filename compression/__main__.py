"""``python -m compression`` is ``ladabert-compress``."""

from compression.cli import main

if __name__ == "__main__":
    main()
