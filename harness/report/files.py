"""The files of a report: report.json for machines, a page and Markdown for people."""

import os
from pathlib import Path

from pydantic import ValidationError

from ..errors import BadInputError
from .html import render_page
from .markdown import render_markdown
from .schema import Report

REPORT, PAGE, MARKDOWN = "report.json", "report.html", "report.md"


def read_report(path: Path) -> Report:
    """Read a report file, or `report.json` of a folder, whatever version wrote it.

    Raises:
        BadInputError: if it is not there or is no report of ours.
    """
    path = path if path.is_file() else path / REPORT
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, ValidationError) as error:
        raise BadInputError(f"{path}: no report of pp-harness: {error}") from error


def write_reports(report: Report, folder: Path) -> None:
    """Write report.json, report.md and report.html into a folder, which is made.

    The file for machines comes first, whatever becomes of the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = report.model_dump_json(indent=1, by_alias=True)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
    (folder / MARKDOWN).write_text(render_markdown(report), encoding="utf-8")
    write_page(report, folder)


def write_page(report: Report, folder: Path) -> Path:
    """Write report.html into a folder that is there.

    Raises:
        OSError: if it cannot be written.
    """
    path = folder / PAGE
    path.write_text(render_page(report), encoding="utf-8")
    return path


def write_job_summary(report: Report) -> None:
    """Append the Markdown to the file that GitHub Actions names in a job, if this is one.

    Raises:
        OSError: if that file cannot be written.
    """
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(render_markdown(report))
