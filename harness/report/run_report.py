"""The report of one run: what was measured, and the records of its items."""

import platform
from collections.abc import Iterable, Mapping
from typing import Any

from .. import __version__
from ..capture.store import Store
from ..checks.expectations import Expectations
from ..plan.hosts import host_identity
from ..plan.sweep import Sweep
from .attribution import attribution_records
from .records import ItemRecord, unique_cells
from .reproduce import lasting
from .schema import SCHEMA, Report


def run_report(
    sweeps: Mapping[str, Sweep],
    expectations: Mapping[str, Expectations],
    devices: int,
    items: list[ItemRecord],
    arguments: Iterable[object],
    store: Store,
) -> Report:
    """Build the report of a run; `sweeps` and `expectations` are by the pin of their points.

    `arguments` are those that pytest was given. The captures of the run are in `store`: those at
    PP=1 tell which patch moved the model itself.
    """
    # An entry that no pin's points fall under.
    unused = [expectations[pin].not_applicable(sweep.points) for pin, sweep in sweeps.items()]
    report = Report(
        schema=SCHEMA,
        environment=_environment(list(sweeps.values()), devices, arguments),
        cells=unique_cells(cell for item in items for cell in item.cells),
        verdicts=[item.verdict for item in items],
        findings=[finding for item in items for finding in item.findings],
        not_applicable=[
            reason for reason in unused[0] if all(reason in others for others in unused)
        ],
    )
    return report.model_copy(update={"attribution": attribution_records(report, store)})


def _environment(sweeps: list[Sweep], devices: int, arguments: Iterable[object]) -> dict[str, Any]:
    sweep, options = sweeps[0], sweeps[0].options
    environment = {
        "pp_harness": __version__,
        "arguments": lasting(arguments),
        **sweep.facts,
        "host": host_identity(sweep.device),
        "device": str(sweep.device),
        "devices": devices,
        **options.settings,
        "gsm8k": options.gsm8k,
        "gsm8k_limit": options.gsm8k_limit,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if options.shard is not None:
        environment["shard"] = "{}/{}".format(*options.shard)
    if asked := {label: each.words for label, each in sweep.servings.items() if each.words}:
        environment["serving"] = asked
    if len(sweeps) > 1:
        environment["pins"] = {sweep.pin.version: sweep.facts for sweep in sweeps}
    return environment
