"""The files of a report, one for machines and two for people; and a job's summary."""

import os
from pathlib import Path

from .html import PAGE, render_page
from .join import REPORT
from .markdown import render_markdown
from .schema import Report


def write_reports(report: Report, folder: Path) -> None:
    """Write report.json, report.md and report.html into a folder, which is made.

    The one for machines comes first, whatever becomes of the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = report.model_dump_json(indent=1, by_alias=True)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
    (folder / "report.md").write_text(render_markdown(report), encoding="utf-8")
    (folder / PAGE).write_text(render_page(report), encoding="utf-8")


def write_job_summary(report: Report) -> None:
    """Append the Markdown to the file that GitHub Actions names in a job, if this is one.

    Raises:
        OSError: if that file cannot be written.
    """
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(render_markdown(report))
