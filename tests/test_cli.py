"""The command line as a whole: quick, and one clear line for bad input."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from harness.assets import patches_dir, suites_dir
from harness.cli import _COMMANDS, cli


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_in_the_index_is_there(name):
    """A name in the lazy index leads to a command that has help."""
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output


def test_suites_prints_a_folder_with_the_suites():
    """`pytest "$(pp-harness suites)"` finds tests, and expected.toml is beside them."""
    printed = CliRunner().invoke(cli, ["suites"]).output.strip()
    assert printed == str(suites_dir())
    assert {"test_pipeline.py", "expected.toml"} <= {path.name for path in suites_dir().iterdir()}
    assert (patches_dir() / "pins.toml").is_file()


def test_help_imports_no_package_behind_a_command():
    """`--help` stays quick: nothing heavy is imported for it."""
    program = (
        "import sys; from harness.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pydantic', 'torch', 'vllm', 'scipy', 'pytest'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Check, list and show patch series." in done.stdout


def test_bad_input_ends_in_one_line_and_status_2(tmp_path):
    """An error of the user's is no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "store", "ls", "--store", str(tmp_path / "none")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("pp-harness: error: ")
    assert done.stderr.count("\n") == 1
