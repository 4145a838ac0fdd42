"""`python -m harness` is `pp-harness`."""

from .cli import main

if __name__ == "__main__":
    main()
