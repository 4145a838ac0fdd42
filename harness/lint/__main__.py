"""`python -m harness.lint`."""

from harness.lint.cli import lint

lint()
