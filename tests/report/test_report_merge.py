"""`pp-harness report merge`: the shards of one sweep become one report, and one store."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from harness.capture.manifest import Manifest, Status
from harness.capture.store import Store
from harness.checks.registry import check_names
from harness.cli.main import cli
from harness.errors import BadInputError
from harness.report.attribution import attribution_records
from harness.report.files import read_report
from harness.report.join import join_reports
from harness.report.schema import CellRecord, FindingRecord, Report, VerdictRecord

CHECKS = check_names()


def shard(points, number=None, *, outcome="pass", fresh=True, expected=False, **environment):
    """Return the report of a shard that judged `points` (variant, model, pp)."""
    verdicts, findings, cells = [], [], {}
    for variant, model, pp in points:
        where = {"variant": variant, "model": model, "pp": pp}
        verdicts += [
            VerdictRecord(**where, check=check, verdict=outcome, expected=expected, summary="said")
            for check in CHECKS
        ]
        if outcome == "fail":
            text = {"message": "differs", "fix": "repair it"}
            findings.append(
                FindingRecord(**where, check="logits", code="LOG001", severity="error", **text)
            )
        for size in (1, pp):
            name = f"{variant}-{model}-pp{size}"
            cells[name] = CellRecord(
                id=name, variant=variant, model=model, pp=size, status="ok", seconds={},
                partition=None, fresh=fresh, key=name,
            )  # fmt: skip
    return Report(
        environment={
            "pin": "0.20.2",
            "trees": {"merged": "m", "fixed": "f"},
            "host": "one",
            **({"shard": number} if number else {}),
            **environment,
        },
        cells=list(cells.values()),
        verdicts=verdicts,
        findings=findings,
        not_applicable=["elsewhere", *(f"{v}-{m}" for v, m, _ in points)],
    )


def test_verdicts_come_in_the_order_of_the_sweep():
    """Variants as in the series, then models, PP and checks, whichever shard they come from."""
    joined = join_reports(
        {
            "b": shard([("fixed", "ple", 2), ("merged", "ple", 4)]),
            "a": shard([("merged", "ple", 2), ("fixed", "ple", 4)]),
        }
    )
    places = [(one.variant, one.pp, one.check) for one in joined.verdicts]
    assert places == [(v, n, c) for v in ("merged", "fixed") for n in (2, 4) for c in CHECKS]


def test_a_cell_of_two_shards_is_there_once_and_fresh_if_it_ran():
    """A baseline that two shards share is one cell; that one of them ran it is kept."""
    joined = join_reports(
        {
            "a": shard([("fixed", "ple", 2)], fresh=False),
            "b": shard([("fixed", "ple", 4)], fresh=True),
        }
    )
    assert [(cell.id, cell.fresh) for cell in joined.cells] == [
        ("fixed-ple-pp1", True),
        ("fixed-ple-pp2", False),
        ("fixed-ple-pp4", True),
    ]


def test_findings_are_kept_once():
    """A point in two reports keeps its findings, once."""
    one = shard([("merged", "ple", 2)], outcome="fail")
    joined = join_reports({"a": one, "b": one, "c": shard([("fixed", "ple", 2)])})
    assert [finding.variant for finding in joined.findings] == ["merged"]


def test_not_applicable_is_what_no_shard_has():
    """An expectation that one shard met is applicable."""
    joined = join_reports({"a": shard([("fixed", "ple", 2)]), "b": shard([("fixed", "moe", 2)])})
    assert joined.not_applicable == ["elsewhere"]


def test_machines_may_differ():
    """Every host is named; one field that all share stays one value."""
    reports = {"a": shard([("fixed", "ple", 2)]), "b": shard([("fixed", "moe", 2)], host="two")}
    environment = join_reports(reports).environment
    assert (environment["host"], environment["pin"]) == (["one", "two"], "0.20.2")


def test_another_subject_is_refused():
    """Reports of different pins are no shards of one sweep."""
    reports = {"a": shard([("fixed", "ple", 2)]), "b": shard([("fixed", "moe", 2)], pin="0.26.0")}
    with pytest.raises(BadInputError, match=r"b: pin is '0.26.0' and '0.20.2' in a"):
        join_reports(reports)


def test_contradiction_is_refused():
    """Two verdicts on one point cannot both stand."""
    point = ("fixed", "ple", 2)
    with pytest.raises(BadInputError, match=r"fixed-ple.*is fail here and pass in another"):
        join_reports({"a": shard([point]), "b": shard([point], outcome="fail")})


def test_missing_shard_is_refused():
    """A merge of two thirds of a sweep is no report of the sweep."""
    reports = {"a": shard([("fixed", "ple", 2)], "1/3"), "b": shard([("fixed", "moe", 2)], "3/3")}
    with pytest.raises(BadInputError, match="shard 2/3 is missing"):
        join_reports(reports)


def test_shards_of_different_sweeps_are_refused():
    """Halves and thirds do not make a whole."""
    reports = {"a": shard([("fixed", "ple", 2)], "1/2"), "b": shard([("fixed", "moe", 2)], "3/3")}
    with pytest.raises(BadInputError, match="different sweeps: 1/2, 3/3"):
        join_reports(reports)


@pytest.fixture
def merge(tmp_path):
    """Return a function that writes reports and runs the command on them."""

    def run(reports, *options):
        for name, report in reports.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "report.json").write_text(report.model_dump_json(by_alias=True))
        folders = [str(tmp_path / name) for name in reports]
        return CliRunner().invoke(
            cli, ["report", "merge", *folders, "--out", str(tmp_path / "out"), *options]
        )

    return run


@pytest.mark.parametrize(
    ("outcome", "expected", "status"),
    [("pass", False, 0), ("fail", True, 0), ("fail", False, 1), ("blocked", False, 1)],
)
def test_command(merge, tmp_path, outcome, expected, status):
    """It writes a whole report, prints the table and ends with 1 unless all is good."""
    result = merge(
        {
            "a": shard([("fixed", "ple", 2)], "1/2"),
            "b": shard([("fixed", "ple", 4)], "2/2", outcome=outcome, expected=expected),
        }
    )
    assert result.exit_code == status
    assert result.output.count("fixed") == 2
    assert len(read_report(tmp_path / "out").verdicts) == 8
    assert json.loads((tmp_path / "out/report.json").read_text())["schema"] == "pp-harness-report/1"


@pytest.mark.parametrize("content", [None, "{", '{"schema": "another"}'])
def test_no_report_is_refused(tmp_path, content):
    """What is no report is named with its path."""
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(BadInputError, match=r"report\.json"):
        read_report(tmp_path)


def test_stores_are_joined(merge, tmp_path, cell):
    """Captures of all machines end in one store, whole; what was there or is damaged is left."""
    stores = [Store(tmp_path / name) for name in ("s1", "s2")]
    for number, key in ((0, "k1"), (1, "k2"), (0, "both"), (1, "both"), (1, "hurt")):
        with stores[number].workspace() as folder:
            (folder / "log.txt").write_text(key)
            stores[number].commit(key, folder, Manifest(cell=cell, status=Status.OK))
    (stores[1].folder("hurt") / "log.txt").write_text("changed")
    result = merge(
        {"a": shard([("fixed", "ple", 2)])},
        *("--store", str(tmp_path / "s1"), "--store", str(tmp_path / "s2")),
        *("--into", str(tmp_path / "all")),
    )
    assert result.exit_code == 0, result.output
    assert "3 captures taken over" in result.output
    joined = Store(tmp_path / "all")
    assert {key for key, _ in joined.all()} == {"k1", "k2", "both"}
    assert all(joined.find(key) for key in ("k1", "k2", "both"))


# ---- which patch did what ---------------------------------------------------------------------

PATCHES = {"base": [], "merged": ["0001.patch"], "fixed": ["0001.patch", "0002.patch"]}
MODELS = ("ple", "dense")


@pytest.fixture
def store(tmp_path, build):
    """Return a store with the PP=1 captures of a series; `fixed` moves the logits of ple."""
    store = Store(tmp_path / "store")
    for variant in PATCHES:
        for model in MODELS:
            built = build(pp=1)
            if (variant, model) == ("fixed", "ple"):
                for row in [
                    row for table in (built.logits, *built.floors) for row in table.values()
                ]:
                    row[0] += 1.0
            capture = built.save()
            store.commit(f"{variant}-{model}-pp1", capture.folder, capture.manifest)
    return store


def judged(variant, model, number=None, **facts):
    """Return the report of the points of a variant and model: merged breaks ple at PP=2."""
    outcome = "fail" if (variant, model) == ("merged", "ple") else "pass"
    trees = dict.fromkeys(PATCHES, "tree")
    points = [(variant, model, pp) for pp in (2, 4)]
    part = shard(points, number, outcome=outcome, **{"trees": trees, **facts})
    for record in (*part.verdicts, *part.findings, *part.cells):
        record.pin = "0.20.2"
    return part


def attributed(report, store=None):
    return report.model_copy(update={"attribution": attribution_records(report, store)})


def effects(report):
    return [
        (record.pp, record.before, record.after, record.model, record.effect)
        for record in report.attribution
    ]


EFFECTS = [
    (1, "merged", "fixed", "ple", "moved"),
    *[(pp, "base", "merged", "ple", "introduced") for pp in (2, 4)],
    *[(pp, "merged", "fixed", "ple", "fixed") for pp in (2, 4)],
]
PLACES = [(variant, model) for variant in PATCHES for model in MODELS]


def test_shards_that_are_merged_attribute_as_the_whole_sweep(store):
    """No shard holds two variants of a model; merged, with their store, they tell the same."""
    shards = {
        f"{n}/6": judged(*place, f"{n}/6", variants=PATCHES) for n, place in enumerate(PLACES, 1)
    }
    parts = {name: attributed(report, store) for name, report in shards.items()}
    assert not any(part.attribution for part in parts.values())
    joined = attributed(join_reports(parts), store)
    parted = [judged(*place, variants=PATCHES) for place in PLACES]
    whole = attributed(join_reports({str(n): part for n, part in enumerate(parted)}), store)
    assert joined.attribution == whole.attribution
    assert effects(joined) == EFFECTS
    assert joined.attribution[0].figures["max_abs"] == 1.0


def test_without_a_store_pp_1_is_what_the_shards_have_seen(store):
    """A shard that held both variants keeps its word on PP=1; verdicts are attributed anew."""
    of_ple = [judged(variant, "ple", "1/2", variants=PATCHES) for variant in PATCHES]
    first = attributed(join_whole(of_ple, "1/2"), store)
    of_dense = [judged(variant, "dense", "2/2", variants=PATCHES) for variant in PATCHES]
    second = attributed(join_whole(of_dense, "2/2"), store)
    assert effects(join_reports({"a": first, "b": second})) == EFFECTS


def test_a_record_of_two_shards_stands_once(store):
    """Shards that shared a baseline both say that it moved; their figures may differ a little."""
    of_ple = [judged(variant, "ple", variants=PATCHES) for variant in PATCHES]
    first = attributed(join_whole(of_ple), store)
    second = first.model_copy(deep=True)
    moved = first.attribution[0]
    second.attribution[0] = replace(moved, message=f"{moved.message} on another machine")
    joined = join_reports({"a": first, "b": second})
    assert effects(joined) == EFFECTS
    assert joined.attribution[0] == first.attribution[0]


def test_a_shard_that_missed_a_variant_is_overruled(store):
    """Base and fixed alone name both patches; with merged between them only one is to blame."""
    apart = [judged(variant, "ple", variants=PATCHES) for variant in ("base", "fixed")]
    first = attributed(join_whole(apart), store)
    assert effects(first) == [(1, "base", "fixed", "ple", "moved")]
    second = attributed(judged("merged", "ple", variants=PATCHES), store)
    joined = join_reports({"a": first, "b": second})
    assert effects(joined) == [(1, "base", "fixed", "ple", "moved"), *EFFECTS[1:]]
    assert effects(attributed(joined, store)) == EFFECTS


def test_old_reports_keep_their_attribution(store):
    """Reports that do not name the patches of their variants lose no record, and none twice."""
    of_ple = [judged(variant, "ple", variants=PATCHES) for variant in PATCHES]
    old = attributed(join_whole(of_ple), store)
    del old.environment["variants"]
    other = judged("fixed", "dense")
    joined = join_reports({"a": old, "b": other, "c": old})
    assert joined.attribution == old.attribution
    assert attributed(joined, store).attribution == old.attribution


def join_whole(parts, number=None):
    """Join reports as if one machine had judged all of it."""
    for part in parts:
        part.environment.pop("shard", None)
    joined = join_reports({str(place): part for place, part in enumerate(parts)})
    if number is not None:
        joined.environment["shard"] = number
    return joined


def test_the_command_attributes_from_the_joined_store(merge, store, tmp_path):
    """`--into` has the captures of all machines: what moved PP=1 is found, printed and kept."""
    parts = {
        str(n): judged(*place, f"{n}/6", variants=PATCHES) for n, place in enumerate(PLACES, 1)
    }
    result = merge(parts, "--store", str(store.root), "--into", str(tmp_path / "all"))
    assert effects(read_report(tmp_path / "out")) == EFFECTS
    assert "0002.patch moved PP=1 of ple: logits differ in 4 of 4 rows" in result.output
