"""Lines for a terminal: header, plan, verdict table, findings, and why an item fails."""

from collections.abc import Collection, Iterable, Sequence

from ..capture.order import CellPlan
from ..checks.accuracy.power import FLIP_RATE, fewest_questions, questions_needed
from ..checks.finding import Outcome, Severity
from ..checks.registry import in_order
from ..engine.hooks.workarounds import needed
from ..engine.settings import Kernels, Mode, Profile
from ..plan.points import telling_parts
from ..plan.sweep import Sweep
from .flips import answer_examples
from .order import by_check, by_point, point_name
from .records import ItemRecord
from .schema import FindingRecord, Report, VerdictRecord
from .text import aligned, figure, one_line
from .view import workarounds_of

# Characters of a question or answer.
_WIDTH = 160


# ---- before a run ----------------------------------------------------------------------------


def header(sweep: Sweep) -> list[str]:
    """Say what is measured."""
    variants = " ".join(variant.name for variant in sweep.variants)
    sizes = ", ".join(map(str, sweep.options.pps))
    tp = f", TP {sweep.options.tp}" if sweep.options.tp > 1 else ""
    asked = sweep.options.kernels
    kernels = f", {' and '.join(asked)} kernels" if Kernels.INVARIANT in asked else ""
    vllm, workarounds = sweep.installation.vllm, needed(sweep.pin.version, sweep.device)
    lent = f", compiled files of {vllm.lender}" if vllm.lender else ""
    return [
        f"pp-harness: vLLM {sweep.pin.version}{lent}, {sweep.subject.title} ({variants}), "
        f"models {' '.join(sweep.models)}, PP {sizes} against 1{tp}{kernels}",
        *(f"pp-harness: {note}" for note in sweep.subject.notes),
        *([f"pp-harness: workarounds: {', '.join(workarounds)}"] if workarounds else []),
        *(f"pp-harness: {serving.words}" for serving in sweep.servings.values() if serving.words),
    ]


def question_lines(sweep: Sweep) -> list[str]:
    """Say which drop of accuracy the questions of each profile can rule out."""
    profiles = {profile: sweep.questions(profile) for profile in sweep.options.profiles}
    return [_question_line(sweep, *asked) for asked in profiles.items() if asked[1]]


def _question_line(sweep: Sweep, profile: Profile, count: int) -> str:
    options = sweep.options
    margin, limit = options.margin, options.gsm8k_limit
    needed, fewest = questions_needed(margin), fewest_questions(margin)
    drop = f"a {100 * margin:g}-point drop"
    if count >= needed:
        can = f"can rule out {drop} (it takes {needed} if {FLIP_RATE:.0%} of the answers flip)"
    elif count >= fewest:
        can = f"can rule out {drop} only if few answers flip ({needed} can at {FLIP_RATE:.0%})"
    else:
        can = f"cannot rule out {drop} ({fewest} can if no answer changes)"
        if profile is Profile.PARITY and options.mode is Mode.EAGER:
            can += ": accuracy passes only if all answers are identical"
    warning = f"warning: --pp-gsm8k-limit {limit}: " if limit is not None else ""
    under = f" under {profile}" if len(options.profiles) > 1 else ""
    return f"pp-harness: {warning}{count} questions{under} {can}"


def plan_lines(planned: CellPlan) -> list[str]:
    """Show the schedule of a sweep: cells as they start, and the whole beside its lower bound."""
    lines = [f"{'start':>7}  {'seconds':>7}  {'devices':>7}  {'from':6}  cell"]
    for scheduled in planned.jobs:
        job = scheduled.job
        cell, source = planned.cells[job.name], planned.expected[job.name].source
        lines.append(
            f"{scheduled.start:7.0f}  {job.seconds:7.0f}  {job.width:7}  {source:6}  {cell.id}"
        )
    makespan, bound = planned.makespan, planned.bound
    ratio = f", {makespan / bound:.2f} times that" if bound else ""
    return [
        *lines,
        f"{len(planned.cells)} cells to run on {planned.devices} devices, at most "
        f"{planned.engines} at once; {len(planned.stored)} are in the store",
        f"lower bound {bound:.0f} s, expected {makespan:.0f} s{ratio}",
    ]


# ---- after a run -----------------------------------------------------------------------------


def verdict_table(verdicts: Sequence[VerdictRecord], checks: Collection[str] = ()) -> list[str]:
    """Tabulate verdicts: a line for each point, a column for each of `checks` and of those judged.

    An expected verdict carries a star, what was not judged a dash.
    """
    points = by_point(verdicts)
    names = telling_parts(points)
    columns = in_order([*checks, *(verdict.check for verdict in verdicts)])
    table = [[*names, *columns]]
    for point, of_point in points.items():
        cells = {v.check: v.verdict + ("*" if v.known else "") for v in of_point}
        table.append(
            [
                *(str(getattr(point, name)) for name in names),
                *(cells.get(column, "-") for column in columns),
            ]
        )
    return aligned(table)


def finding_lines(report: Report) -> list[str]:
    """List the findings that fail a run, a line each, and count them."""
    bad = [verdict for verdict in report.verdicts if not verdict.good]
    known = sum(verdict.known for verdict in report.verdicts)
    rest = f"; {known} known, see expected.toml" if known else ""
    total = len(report.verdicts)
    if not bad:
        return [f"No finding in {total} checks{rest}."]
    findings = by_check(report.findings)
    lines = []
    for place, (verdict, *_) in by_check(bad).items():
        name, telling = point_name(verdict), _telling(findings.get(place, ()))
        if verdict.verdict is Outcome.PASS or not telling:
            reason = one_line(verdict.reason or verdict.summary)
            lines.append(f"{name}: {verdict.check} {reason}")
            continue
        for finding in telling:
            where = f" ({one_line(finding.place)})" if finding.place else ""
            lines.append(one_line(f"{name}: {finding.code} {finding.message}") + where)
    return [*lines, f"{len(bad)} of {total} checks fail{rest}."]


def workaround_lines(report: Report) -> list[str]:
    """List the workarounds that acted, if any, with the releases that they acted in."""
    names = workarounds_of(report)
    return [f"workarounds that acted: {', '.join(names)}"] if names else []


def attribution_lines(report: Report) -> list[str]:
    """Say which patch did what."""
    return [one_line(record.message) for record in report.attribution]


def explain(record: ItemRecord, reason: str) -> str:
    """Explain why an item fails: the reason, then place, evidence and fix of each error."""
    lines = [one_line(reason)]
    for finding in _telling(record.findings):
        if one_line(finding.message) not in lines[0]:
            lines.append(one_line(f"{finding.code} {finding.message}"))
        where = ", ".join(part for part in (finding.where, finding.place) if part)
        lines.append(f"  {finding.code}: {one_line(where)}" if where else f"  {finding.code}")
        lines += [f"  {line}" for line in _evidence_lines(finding)]
        lines.append(f"  fix: {one_line(finding.fix)}")
    return "\n".join(lines)


def _telling(findings: Iterable[FindingRecord]) -> list[FindingRecord]:
    """The errors among findings, or the warnings if there are none."""
    findings = list(findings)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    return errors or [finding for finding in findings if finding.severity is Severity.WARNING]


def _evidence_lines(finding: FindingRecord) -> list[str]:
    """Numbers of a finding on one line, and one changed answer on others."""
    numbers = ", ".join(
        f"{name} {figure(value)}"
        for name, value in finding.evidence.items()
        if isinstance(value, int | float)
    )
    lines = [f"evidence: {one_line(numbers)}"] if numbers else []
    for example in answer_examples(finding)[:1]:
        lines.append(f"asked: {one_line(example['question'], _WIDTH)}")
        lines.append(f"PP=1:  {one_line(example['baseline'], _WIDTH)}")
        lines.append(f"here:  {one_line(example['candidate'], _WIDTH)}")
    return lines
