"""The command that shows a verdict again."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from ..assets import suites_dir

# Options that a reproduction sets itself, or that say where one machine keeps what.
_OWN = (
    *("-k", "-m", "-n", "--numprocesses", "--pp-shard", "--pp-time-limit", "--pp-variant"),
    *("--pp-report", "--pp-store", "--pp-history", "--report-log", "--junitxml", "--junit-xml"),
)


def lasting(arguments: Iterable[object]) -> list[str]:
    """Keep those of pytest's arguments that say what was measured, whoever measures it."""
    suites = str(suites_dir())
    kept, skip = [], False
    for argument in map(str, arguments):
        if argument.startswith(suites):
            kept.append(f"suites{argument.removeprefix(suites)}")
        elif skip:
            skip = False
        elif argument in _OWN:
            skip = True
        elif argument.partition("=")[0] not in _OWN and argument != "--pp-ignore-expected":
            kept.append(argument)
    return kept


def reproduce(environment: Mapping[str, Any], check: str, variant: str, point: str) -> str:
    """Write the shell command that judges a check of a point again, known or not.

    `environment` is that of the report; one from before its field `arguments` gives the default
    series and questions. `point` is a point's id.
    """
    arguments = environment.get("arguments")
    if arguments is None:
        pp = point.rpartition("-pp")[2].partition("-")[0]
        arguments = ["suites/", "--pp", pp]
    own = ["--pp-variant", variant, "--pp-ignore-expected", "-k", f"test_{check}[{point}]"]
    return shlex.join(["pytest", *arguments, *own])
