"""The reference pages of the site, from the code: pytest's `--pp` options and the click commands.

mkdocs runs this at each build (mkdocs.yml, gen-files), so that the pages cannot be out of date.
"""

import argparse
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import click
import pytest

from harness.cli.main import cli
from harness.plugin.options import add_options


def options_page() -> str:
    """Return the page of the plugin's options, in the order in which they are declared."""
    lines = [
        "# Options of pytest",
        "",
        "What `pytest suites/ --pp N` takes. Generated from `harness/plan/options.py`.",
        "",
        "| option | meaning | default |",
        "|--|--|--|",
    ]
    for option in _plugin_options():
        names = " ".join(option.option_strings)
        metavar = f" {option.metavar}" if option.metavar else ""
        default = "" if option.default in (None, False, []) else f"`{option.default}`"
        lines.append(f"| `{names}{metavar}` | {_cell(option.help or '')} | {default} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return the page of every command, each with what its `--help` prints."""
    lines = ["# Commands", "", "What `--help` says of each command. Exit status: 0 nothing found,"]
    lines += ["1 findings, 2 bad input.", ""]
    top = click.Context(cli, info_name="pp-harness", **cli.context_settings)
    for name, command, context in _commands(cli, top):
        lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _plugin_options() -> list[argparse.Action]:
    """Return the options as argparse knows them once pytest has taken them in."""
    parser = argparse.ArgumentParser(add_help=False)
    group = SimpleNamespace(addoption=parser.add_argument)
    add_options(cast("pytest.Parser", SimpleNamespace(getgroup=lambda *_: group)))
    return parser._actions


def _commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, click.Context(inner, parent=context, info_name=name))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _write() -> None:
    import mkdocs_gen_files

    for name, page in (("options", options_page()), ("commands", commands_page())):
        with mkdocs_gen_files.open(f"reference/{name}.md", "w") as file:
            file.write(page)


if __name__ == "<run_path>":  # how mkdocs runs it
    _write()
