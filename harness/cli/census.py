"""`pp-harness census`: every architecture of a release that claims PP, each as a tiny model."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from ..assets import default_store, suites_dir
from ..errors import BadInputError
from ..lint.project import Project
from ..models.class_defaults import class_defaults
from ..models.stand_in import StandIn, stand_in, uneven_split
from ..report.census import (
    CensusRow,
    census_document,
    census_page,
    changes_table,
    counts,
    judged_row,
)
from ..report.files import read_report
from ..report.schema import Report
from ..source.environments import find_vllm
from ..source.pin import InstalledVllm, load_pins
from ..source.registry import ModelClass, generating_models
from .census_lint import LintWord, class_of, lint_words
from .paths import NEW_FOLDER

# In this order: what has no answer at PP=1 starts no engines of more stages.
_SIZES = ((2,), (3, 4))
_UNEVEN = 3  # the size at which layers are split unevenly where vLLM splits them evenly


@click.command()
@click.option(
    "--pin", "release", metavar="VERSION", help="The release; the default pin if left out."
)
@click.option("--only", metavar="ARCH,...", help="Only these architectures.")
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts of what can run.")
@click.option(
    "--store",
    type=NEW_FOLDER,
    help="Where captures are kept; a second run goes on from there. The user's cache if left out.",
)
@click.option(
    "--out",
    type=NEW_FOLDER,
    default=Path("census"),
    show_default=True,
    help="Folder for census.json, census.md, the tiny configs and the reports of the runs.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="census.json of another release (repeat): changes.md says what turned red or green.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Longest time for all engines together; the next run goes on from there.",
)
@click.option("--plan", is_flag=True, help="Start no engine: say what has a config and what not.")
def census(
    release: str | None,
    only: str | None,
    shard: str | None,
    store: Path | None,
    out: Path,
    against: tuple[Path, ...],
    time_limit: float | None,
    *,
    plan: bool,
) -> None:
    """Run every architecture of a release's registry that claims PP at PP 1, 2, 3 and 4.

    Each is a tiny model from the default config of its class, with random weights drawn in vLLM's
    own classes; contract and logits are judged, eager, without questions. A model that wraps a
    decoder gets text prompts alone. Exit status 1: a check failed where PP=1 has an answer.
    """
    part = _read_shard(shard)
    pin = load_pins().get(release)
    vllm = find_vllm(pin)
    root, store = vllm.package_dir.parent, (store or default_store()).absolute()
    models = _chosen(generating_models(root), only)
    stand_ins = _stand_ins(vllm, models)
    runnable = [each for each in stand_ins if each.config is not None]
    lint = {} if plan else lint_words(root, models)
    facts = {"vllm": pin.version, "device": "CPU" if vllm.is_cpu else "CUDA"}
    names = {store: "STORE", root: "PIN"}
    out.mkdir(parents=True, exist_ok=True)
    reports: list[Report] = []
    rows = _write(stand_ins, reports, lint, facts, names, out)
    configs = _written(runnable, out / "configs")
    began = time.monotonic()
    asked = [] if plan else runnable[part]
    for sizes in _SIZES:
        for sweep, group in _by_sweep(asked, vllm, sizes).items():
            files = [configs[each.architecture] for each in group]
            options = sweep.options
            if time_limit:
                left = max(1.0, began + time_limit - time.monotonic())
                options += ["--pp-time-limit", f"{left:.0f}"]
            reports.append(_run(pin.version, files, options, store, out / f"run-{sweep.name}"))
            rows = _write(stand_ins, reports, lint, facts, names, out)
        answered = {row.architecture for row in rows if row.reason is None}
        asked = [each for each in asked if each.architecture in answered]
    claiming = sum(each.by != "" or each.detail != "" for each in stand_ins)
    configured = sum(each.by != "" for each in stand_ins)
    click.echo(
        f"vLLM {pin.version}: {len(rows)} architectures, {claiming} claim PP, {configured} of "
        f"these have a config, {len(runnable)} can be shrunk"
    )
    for word, count in counts(rows).items():
        click.echo(f"{count:4} {word}")
    click.echo(str(out / "census.md"))
    if against:
        others = [json.loads(file.read_text(encoding="utf-8")) for file in against]
        lines = changes_table([*others, census_document(rows, facts)])
        (out / "changes.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        click.echo(f"{len(lines) - 2} changed: {out / 'changes.md'}")
    raise SystemExit(1 if any(row.is_red for row in rows) else 0)


@dataclass(frozen=True)
class _Sweep:
    """What the architectures of one sweep share: layers of each stage at one PP size, and so on."""

    sizes: tuple[int, ...]
    split: tuple[int, ...] | None
    is_multimodal: bool
    dtype: str

    @property
    def name(self) -> str:
        pp, split = (",".join(map(str, numbers)) for numbers in (self.sizes, self.split or ()))
        parts = (f"pp{pp}", split or "default", self.dtype, "text" * self.is_multimodal)
        return "-".join(filter(None, parts))

    @property
    def options(self) -> list[str]:
        options = ["--pp", ",".join(map(str, self.sizes)), "--pp-dtype", self.dtype]
        if self.split:
            options += ["--pp-partition", ",".join(map(str, self.split))]
        if self.is_multimodal:  # builds no tower, and asks no processor
            options += ["--pp-engine", "language_model_only=true"]
        return options


def _write(
    stand_ins: Sequence[StandIn],
    reports: Sequence[Report],
    lint: Mapping[str, LintWord],
    facts: Mapping[str, str],
    names: Mapping[Path, str],
    out: Path,
) -> list[CensusRow]:
    rows = []
    for each in stand_ins:
        word = lint.get(each.architecture, LintWord())
        rows.append(judged_row(each, reports, word.codes, word.loading, names))
    document = json.dumps(census_document(rows, facts), indent=1)
    (out / "census.json").write_text(document + "\n", encoding="utf-8")
    (out / "census.md").write_text(census_page(rows, facts), encoding="utf-8")
    return rows


def _chosen(models: Sequence[ModelClass], only: str | None) -> tuple[ModelClass, ...]:
    """Take the classes that serve what `only` names, with these architectures alone."""
    if only is None:
        return tuple(models)
    names = only.split(",")
    known = {name for model in models for name in model.architectures}
    for name in names:
        if name not in known:
            raise BadInputError(f"--only {name}: the registry has no such generating architecture")
    kept = (
        replace(model, architectures=tuple(n for n in model.architectures if n in names))
        for model in models
    )
    return tuple(model for model in kept if model.architectures)


def _stand_ins(vllm: InstalledVllm, models: Iterable[ModelClass]) -> list[StandIn]:
    """Find what stands for each architecture; those that claim no PP are not asked for a config."""
    root = vllm.package_dir.parent
    project = Project(root)
    claiming = [model for model in models if _claims_pp(project, root, model)]
    defaults = class_defaults(vllm, claiming)
    return [
        stand_in(architecture, defaults.get(architecture), is_multimodal=model.is_multimodal)
        for model in models
        for architecture in model.architectures
    ]


def _claims_pp(project: Project, root: Path, model: ModelClass) -> bool:
    found = class_of(project, root, model)
    return found is not None and project.claims_pp(found)


def _read_shard(text: str | None) -> slice:
    """Read `I/N` as the I-th of N parts of what can run; everything without it."""
    number, _, count = (text or "1/1").partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise BadInputError(f"--shard {text}: write I/N, as 1/4")
    return slice(int(number) - 1, None, int(count))


def _by_sweep(
    stand_ins: Iterable[StandIn], vllm: InstalledVllm, sizes: tuple[int, ...]
) -> dict[_Sweep, list[StandIn]]:
    """Group what can run in one sweep at these PP sizes."""
    groups: dict[_Sweep, list[StandIn]] = {}
    for each in stand_ins:
        assert each.config is not None  # only those that can run
        dtype = each.dtype if vllm.is_cpu else "bfloat16"
        split = uneven_split(each.config, _UNEVEN) if _UNEVEN in sizes else None
        sweep = _Sweep(sizes, split, each.is_multimodal, dtype)
        groups.setdefault(sweep, []).append(each)
    return groups


def _written(stand_ins: Sequence[StandIn], folder: Path) -> dict[str, Path]:
    """Write the config of each architecture to a file of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for each in stand_ins:
        files[each.architecture] = file = folder.absolute() / f"{each.architecture}.json"
        file.write_text(json.dumps(each.config, indent=1) + "\n", encoding="utf-8")
    return files


def _run(
    release: str, configs: Sequence[Path], options: Sequence[str], store: Path, folder: Path
) -> Report:
    """Run the architectures of one sweep; what the store has is not run again."""
    command = [
        *(sys.executable, "-m", "pytest", str(suites_dir()), "-q", "-p", "no:cacheprovider"),
        *("--pp-pin", release, "--pp-variant", "base"),
        *("--pp-store", str(store), "--pp-report", str(folder.absolute()), *options),
        *("--pp-ignore-expected", "-k", "test_engine or test_contract or test_logits"),
        *("--pp-model", ",".join(f"shape:{path}" for path in configs)),
    ]
    status = subprocess.run(command, check=False).returncode
    if status not in (0, 1):
        raise BadInputError(f"the sweep ended with status {status}: {' '.join(command)}")
    return read_report(folder)
