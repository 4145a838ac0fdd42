"""The verdict tables of results/README.md are those of the reports."""

from tools.verdicts import HEADING, RESULTS, verdict_tables


def test_the_page_says_what_the_reports_say():
    """Nothing was edited by hand and no record is missing: `python -m tools.verdicts` writes it."""
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    index, _, _ = page.partition(HEADING)
    assert page == index + verdict_tables(RESULTS)
    for folder in RESULTS.iterdir():
        assert folder.is_file() or f"[{folder.name}]({folder.name}/README.md)" in index
