"""The reference pages of the site, from the code: pytest's `--pp` options and the click commands.

mkdocs runs this at each build (mkdocs.yml, gen-files), so that the pages cannot be out of date.
"""

from collections.abc import Iterator

import click

from harness.cli.main import cli
from harness.plan.options import declarations, help_of
from harness.plan.serving import load_recipe, recipe_names, servings


def options_page() -> str:
    """Return the page of the plugin's options, in the order in which they are declared."""
    lines = [
        "# Options of pytest",
        "",
        "What `pytest suites/ --pp N` takes. Generated from `harness/plan/options.py`.",
        "",
        *option_table(),
    ]
    return "\n".join(lines) + "\n"


def option_table() -> list[str]:
    """Write the table of options, which the README has too: a row for each, by group."""
    rows = ["| option | meaning |", "|--|--|"]
    group = None
    for entry, option in declarations():
        if option.group is not group:
            group = option.group
            rows.append(f"| **{group}** | |")
        name = f"{option.flag} {option.shape}".strip().replace("|", "\\|")
        rows.append(f"| `{name}` | {help_of(entry)} |")
    return rows


def recipe_table() -> list[str]:
    """Write the docs' table of recipes, a row for each."""
    rows = ["| recipe | serves with | devices | settings |", "|--|--|--|--|"]
    for name in recipe_names():
        recipe, (serving,) = load_recipe(name), servings([name], (), ())
        pairs = ", ".join(f"`{key}={value}`" for key, value in (*serving.engine, *serving.env))
        rows.append(f"| `{name}` | {recipe.about} | {', '.join(recipe.devices)} | {pairs} |")
    return rows


def commands_page() -> str:
    """Return the page of every command, each with what its `--help` prints."""
    lines = ["# Commands", "", "What `--help` says of each command. Exit status: 0 nothing found,"]
    lines += ["1 findings, 2 bad input.", ""]
    top = click.Context(cli, info_name="pp-harness", **cli.context_settings)
    for name, command, context in _commands(cli, top):
        lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, click.Context(inner, parent=context, info_name=name))


def _write() -> None:
    import mkdocs_gen_files

    for name, page in (("options", options_page()), ("commands", commands_page())):
        with mkdocs_gen_files.open(f"reference/{name}.md", "w") as file:
            file.write(page)


if __name__ == "<run_path>":  # how mkdocs runs it
    _write()
