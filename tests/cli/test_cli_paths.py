"""What could not be written is refused before any work, by every command that writes."""

import pytest

from harness.cli.main import main
from harness.cli.paths import NEW_FILE, write_new
from harness.errors import BadInputError

COMMANDS = (
    ("census", "--plan", "--out", "{}"),
    ("census", "--plan", "--store", "{}"),
    ("model", "shrink", "config.json", "{}"),
    ("report", "append", ".", "{}"),
    ("report", "merge", ".", "--out", "{}"),
    ("report", "merge", ".", "--out", "out", "--store", ".", "--into", "{}"),
    ("report", "trend", "history", "--html", "{}"),
    ("selftest", "--json", "{}"),
    ("selftest", "--store", "{}"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_path_below_a_file_is_refused_at_once(tmp_path, monkeypatch, capsys, command):
    """By its name, with the reason and status 2; nothing is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main([word.format("file/below") for word in command])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "file/below: " in said.err
    assert "is a file" in said.err
    assert said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_not_written_over_a_folder(tmp_path, capsys):
    """A folder in the place of a file needs another name."""
    with pytest.raises(SystemExit) as ended:
        main(["selftest", "--json", str(tmp_path)])
    assert ended.value.code == 2
    assert "name a file in it" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_made(tmp_path):
    """What is not refused at once is written at the end, after all the work."""
    file = NEW_FILE(str(tmp_path / "new/folder/file"))
    write_new(file, "text")
    assert file.read_text() == "text"


def test_what_cannot_be_written_in_the_end_is_one_sentence(tmp_path):
    """The folder may have gone meanwhile: no traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match=r"file/below: cannot be written: "):
        write_new(tmp_path / "file/below", "text")
