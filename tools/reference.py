"""The reference pages of the site, from the code: pytest's `--pp` options and the click commands.

mkdocs runs this at each build (mkdocs.yml, gen-files), so that the pages cannot be out of date.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from harness.checks.finding import Outcome
from harness.cli.main import cli
from harness.engine.settings import Device
from harness.plan.options import declarations, help_of
from harness.plan.points import Point
from harness.plan.serving import load_recipe, recipe_names, servings
from harness.report.census import BASELINE
from harness.report.files import REPORT, read_report


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
    """Write the docs' table of recipes, a row for each that can be asked for."""
    rows = ["| recipe | serves with | settings |", "|--|--|--|"]
    for name in recipe_names():
        recipe = load_recipe(name)
        if not recipe.not_yet:
            (serving,) = servings([name], (), ())
            given = (*serving.engine, *serving.env, *serving.probes, *serving.questions)
            pairs = ", ".join(f"`{key}={value}`".replace("|", "\\|") for key, value in given)
            rows.append(f"| `{name}` | {recipe.about} | {pairs} |")
    return rows


def feature_table(results: Path) -> list[str]:
    """Write the table of what can be asked: each recipe, by device, with the records of it.

    A recipe is answered where a report below `results` has a verdict on its logits, or its engine
    ended at PP=N alone, on a release that serves so.
    """
    answered: dict[tuple[str, str], list[str]] = {}
    for path in sorted(results.rglob(REPORT)):
        report = read_report(path.parent)
        ended = {Point.of(found) for found in report.findings if found.code in BASELINE}
        for verdict in report.verdicts:
            is_failure = verdict.verdict is Outcome.FAIL and Point.of(verdict) not in ended
            if (verdict.check == "logits" and verdict.verdict is Outcome.PASS) or (
                verdict.check in ("engine", "logits") and is_failure
            ):
                device = report.environment.get("device", "")
                release = verdict.pin or report.environment.get("pin", "")
                record = path.relative_to(results).parts[0]
                known = answered.setdefault((verdict.serving, device), [])
                if record not in known and not _refused(verdict.serving, device, release):
                    known.append(record)
    rows = ["| feature | recipe | cpu | cuda |", "|--|--|--|--|"]
    for name in recipe_names():
        recipe = load_recipe(name)
        cells = []
        for device in Device:
            records = answered.get((name, device))
            if recipe.not_yet:
                cells.append(f"not yet: {recipe.not_yet}")
            elif device in recipe.refused and device not in recipe.since:
                cells.append(f"refused: {recipe.refused[device]}")
            else:
                cells.append(f"answered ({', '.join(records)})" if records else "no record")
        rows.append(f"| {recipe.about} | `{name}` | {' | '.join(cells)} |")
    return rows


def _refused(serving: str, device: str, release: str) -> bool:
    """Whether a release does not serve by a recipe on a device, so that a verdict says nothing."""
    if serving not in recipe_names() or not release:
        return False
    return load_recipe(serving).refusal(Device(device), release) is not None


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
