"""The report of one run: what was measured, and the records of its items."""

import platform
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .. import __version__
from ..plan.hosts import host_identity
from .attribution import attribution_records
from .records import collect
from .reproduce import lasting
from .schema import ItemRecord, Report

if TYPE_CHECKING:
    from ..capture.devices import DevicePool
    from ..capture.store import Store
    from ..checks.expectations import Expectations
    from ..plan.sweep import Sweep


class Judged(Protocol):
    """The sweeps and expectations of a run by pin, and its devices."""

    @property
    def sweeps(self) -> "Mapping[str, Sweep]":
        """The sweeps by the pin of their points."""

    @property
    def expectations(self) -> "Mapping[str, Expectations]":
        """The known findings by the pin of the points."""

    @property
    def pool(self) -> "DevicePool":
        """The devices of all sweeps."""


def run_report(
    judged: Judged, records: list[ItemRecord], arguments: Iterable[object], store: "Store"
) -> Report:
    """Build the report of a run; `arguments` are those that pytest was given.

    Its captures are in `store`: those at PP=1 tell which patch moved the model itself.
    """
    # An entry that no pin's points fall under.
    unused = [
        judged.expectations[label].not_applicable(sweep.points)
        for label, sweep in judged.sweeps.items()
    ]
    nowhere = [reason for reason in unused[0] if all(reason in others for others in unused)]
    report = collect(records, _environment(judged, arguments), nowhere)
    return report.model_copy(update={"attribution": attribution_records(report, store)})


def _environment(judged: Judged, arguments: Iterable[object]) -> dict[str, Any]:
    sweep = next(iter(judged.sweeps.values()))
    options = sweep.options
    environment = {
        "pp_harness": __version__,
        "arguments": lasting(arguments),
        **sweep.facts,
        "host": host_identity(sweep.device),
        "device": str(sweep.device),
        "devices": len(judged.pool.ids),
        **options.settings,
        "gsm8k": options.gsm8k,
        "gsm8k_limit": options.gsm8k_limit,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if options.shard is not None:
        environment["shard"] = "{}/{}".format(*options.shard)
    if len(judged.sweeps) > 1:
        environment["pins"] = {sweep.pin.version: sweep.facts for sweep in judged.sweeps.values()}
    return environment
