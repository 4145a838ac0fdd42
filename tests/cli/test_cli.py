"""The command line: lazy, and bad input is one line and status 2."""

import subprocess
import sys

import click
import pytest

from harness import __version__
from harness.cli import main as cli


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_every_command(capsys, arguments):
    """--help names each command with a line of help."""
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    for name, help_line in cli._COMMANDS.items():
        assert f"  {name} " in out
        assert help_line.split(".")[0][:30] in out


@pytest.mark.parametrize("name", sorted(cli._COMMANDS))
def test_every_command_can_be_loaded(capsys, name):
    """Each command in the index is there and explains itself."""
    status, out, _ = run(capsys, name, "--help")
    assert status == 0
    assert "Usage: pp-harness" in out


def test_version(capsys):
    """--version prints the version of the harness."""
    assert run(capsys, "--version") == (0, f"pp-harness, version {__version__}\n", "")


def test_unknown_command(capsys):
    """An unknown command is bad input."""
    status, _, err = run(capsys, "nope")
    assert status == 2
    assert "No such command 'nope'" in err


def test_unknown_option(capsys):
    """An unknown option is bad input."""
    assert run(capsys, "series", "--nope")[0] == 2


def test_bad_input_is_one_line(capsys, tmp_path):
    """Bad input found by a command ends in one line on stderr and status 2."""
    status, out, err = run(capsys, "series", "lint", str(tmp_path / "gone"))
    assert status == 2
    assert out == ""
    assert err.startswith("pp-harness: error: ")
    assert err.count("\n") == 1


def test_other_errors_are_bugs_and_not_hidden(monkeypatch):
    """An error that nobody raised on purpose keeps its traceback."""

    @click.command()
    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(cli.cli, "get_command", lambda *_: broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["series"])


def test_module_is_the_command():
    """`python -m harness` is `pp-harness`, and its help imports nothing heavy."""
    code = (
        "import sys, runpy\nsys.argv = ['harness', '--help']\n"
        "try:\n    runpy.run_module('harness', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'vllm', 'numpy', 'scipy', 'pydantic'} & set(sys.modules)\n"
        "    sys.exit(end.code or (str(heavy) if heavy else 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: pp-harness" in done.stdout
