"""docs/families.md shows what the recorded censuses have."""

from tools.census_page import PAGE, count_table, recorded, written


def test_the_tables_are_those_of_the_records():
    """A renewed census renews the page: `python -m tools.census_page` changes nothing."""
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page


def test_every_row_of_a_record_is_counted():
    """The answers of a release add up to its architectures."""
    documents = recorded()
    _, _, total, *lines = [row.strip("| ").split(" | ") for row in count_table(documents)]
    for column, document in enumerate(documents, 1):
        assert int(total[column]) == len(document["rows"])
        assert sum(int(line[column]) for line in lines) == len(document["rows"])
