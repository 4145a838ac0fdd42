"""Whole small models, each right or wrong as its first line says."""

from __future__ import annotations

from pathlib import Path

import pytest
from lint_models import case_files, expected_codes

from harness.lint import lint_paths


@pytest.mark.parametrize("case", case_files(), ids=lambda case: case.stem)
def test_wrong_models_fail_and_right_ones_pass(case: Path) -> None:
    """A wrong model gets the errors and warnings of its fault and no others, a right one none."""
    assert {finding.code for finding in lint_paths([case]).failing} == expected_codes(case)


def test_about_half_of_the_cases_are_right() -> None:
    """The cases show both that faults are found and that correct code is left alone."""
    right = sum(not expected_codes(case) for case in case_files())
    assert len(case_files()) / 3 <= right <= len(case_files()) * 2 / 3
