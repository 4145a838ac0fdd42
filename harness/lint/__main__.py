"""`python -m harness.lint`."""

from harness.cli.lint import lint

lint()
