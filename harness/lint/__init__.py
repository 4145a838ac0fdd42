"""Static contract analysis of model files: what each pipeline rank declares, sends and reads.

Standard library `ast` only: neither torch nor vLLM is imported.
"""

from harness.lint.analyse import lint_change, lint_paths
from harness.lint.report import Finding, LintReport, Severity
from harness.lint.rules import RULES, Rule, explain

__all__ = [
    "RULES",
    "Finding",
    "LintReport",
    "Rule",
    "Severity",
    "explain",
    "lint_change",
    "lint_paths",
]
