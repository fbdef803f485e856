"""``python -m ladabert_compress`` is ``ladabert-compress``."""

from ladabert_compress.cli.main import main

if __name__ == "__main__":
    main()
