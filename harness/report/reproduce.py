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
    """Return those of pytest's arguments that say what was measured, whoever measures it."""
    suites = str(suites_dir())
    kept, skip = [], False
    for one in map(str, arguments):
        if one.startswith(suites):
            kept.append(f"suites{one.removeprefix(suites)}")
        elif skip:
            skip = False
        elif one in _OWN:
            skip = True
        elif one.partition("=")[0] not in _OWN and one != "--pp-ignore-expected":
            kept.append(one)
    return kept


def reproduce(environment: Mapping[str, Any], check: str, variant: str, point: str) -> str:
    """Return a shell command that judges one check of one point again, known or not.

    `environment` is that of the report; one from before its field `arguments` gives the default
    series and questions. `point` is a point's id.
    """
    arguments = environment.get("arguments")
    if arguments is None:
        pp = point.rpartition("-pp")[2].partition("-")[0]
        arguments = ["suites/", "--pp", pp]
    own = ["--pp-variant", variant, "--pp-ignore-expected", "-k", f"test_{check}[{point}]"]
    return shlex.join(["pytest", *arguments, *own])
