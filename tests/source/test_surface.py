"""The table of vLLM's names, and its check against a release's source."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import harness.engine
from harness.assets import patches_dir
from harness.cli import main as cli
from harness.source.pin import load_pins, locate_vllm
from harness.source.surface import Names, Need, check_surface, load_surface

FAKE = Path(__file__).parent.parent / "fake_vllm"
ENGINE = Path(harness.engine.__file__).parent


@pytest.fixture
def tree(tmp_path):
    """Return a function that writes files of a package vllm and gives the folder that holds it."""

    def write(**files):
        for name, text in {"__init__": "", **files}.items():
            path = tmp_path / "vllm" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def problems(root, owner, *names, file="worker.py"):
    """How the release lacks each name; empty where it has it."""
    findings = check_surface(root, [Names(file, owner, "hooks/x.py", names)])
    return [finding.problem for finding in findings]


def test_names_of_every_kind_are_found(tree):
    """Functions, assignments, imports, attributes that a method sets; inside `if` and `try` too."""
    root = tree(
        worker="""
from os import getpid
if True:
    from .other import imported
try:
    size: int = 3
finally:
    pass
def run(first, second, third=None): pass
class Worker:
    limit = 4
    def __init__(self, rank):
        if rank:
            self.rank, self.size = rank, 1
            self.pair: tuple = ()
    def step(self, output): pass
"""
    )
    assert problems(root, None, "getpid", "imported", "size", "run(first, second)") == [
        "",
        "",
        "",
        "",
    ]
    names = ("limit", "rank", "size", "pair", "step(output)", "__init__(rank)")
    assert set(problems(root, "Worker", *names)) == {""}


def test_a_class_has_what_it_inherits(tree):
    """From a base in its file, in another file, and behind a package that passes it on."""
    root = tree(
        base="class Base:\n    def __init__(self):\n        self.rank = 0\n",
        passes_on="from .base import Base as Renamed\n",
        worker="""
from vllm.passes_on import Renamed
class Middle(Renamed):
    def middle(self): pass
class Worker(Middle): pass
""",
    )
    assert problems(root, "Worker", "rank", "middle") == [
        "",
        "",
    ]


def test_a_missing_name_is_reported_with_those_like_it(tree):
    """A name that a release has moved or renamed: the reader sees where to look."""
    root = tree(worker="class Worker:\n    def sync_and_gather_tensors(self): pass\n")
    assert problems(root, "Worker", "sync_and_slice_tensors") == [
        "missing: no sync_and_slice_tensors; there is sync_and_gather_tensors"
    ]
    assert problems(root, "Workers", "run") == ["missing: no Workers; there is Worker"]
    assert problems(root, None, "run", file="gone.py") == ["missing: no file vllm/gone.py"]


def test_other_parameters_are_another_signature(tree):
    """A hook that passes on by position needs the same parameters, first and in this order."""
    root = tree(worker="class Worker:\n    def run(self, step, more): pass\n")
    assert problems(root, "Worker", "run(step)", "run(output)", "run(more, step)") == [
        "",
        "signature differs: run(step, more)",
        "signature differs: run(step, more)",
    ]


def test_one_of_several_names_is_enough(tree):
    """A release has the old name or the new one; if it has one, with the right parameters."""
    root = tree(worker="class Worker:\n    def new(self, given): pass\n")
    assert problems(root, "Worker", "old(given) | new(given)", "old | older", "old | new(x)") == [
        "",
        "missing: no old",
        "signature differs: new(given)",
    ]


def test_a_file_that_is_no_python_is_missing(tree):
    """A checkout may be in the middle of an edit."""
    root = tree(worker="class Worker:\n    def run(:\n")
    (problem,) = problems(root, "Worker", "run")
    assert problem.startswith("missing: line 2 is no Python")


def test_a_base_that_is_no_python_is_named(tree):
    """The file that is broken is another than the one that was asked for."""
    root = tree(
        worker="from .base import Base\nclass Worker(Base): pass\n",
        base="class Base:\n    def run(:\n",
    )
    (problem,) = problems(root, "Worker", "run")
    assert problem.startswith("missing: vllm/base.py, line 2 is no Python")


def test_a_circle_is_no_place(tree):
    """Python itself would refuse to import such files."""
    root = tree(
        worker="from .base import Base\nclass Worker(Base): pass\n",
        base="from .worker import Worker\nclass Base(Worker): pass\n",
    )
    assert problems(root, "Worker", "run") == ["missing: it is imported, or inherited, in a circle"]


def test_a_release_may_lack_an_optional_file(tree):
    """It came with a later release; where it is there, it has the names."""
    missing = Names("v1/later.py", None, "hooks/wrap.py", ("scan",), optional=True)
    (finding,) = check_surface(tree(), [missing])
    assert finding.problem == ""
    (finding,) = check_surface(tree(), [replace(missing, optional=False)])
    assert finding.problem.startswith("missing: no file")


def test_the_table_is_well_formed():
    """Each name stands once, is written as the check reads it, and is used by a file that is there.

    Of one rank at least: no part of the table is for no one.
    """
    written = [(names.file, names.owner, name) for names in load_surface() for name in names.names]
    assert len(written) == len(set(written))
    for _, _, name in written:
        for alternative in name.split(" | "):
            assert re.fullmatch(r"\w+(\((\w+(, \w+)*)?\))?", alternative), name
    for names in load_surface():
        for user in names.used_by.split(", "):
            places = (ENGINE / user, ENGINE / "hooks" / user)
            assert any(place.exists() for place in places), names.used_by
    assert {names.need for names in load_surface()} == set(Need)


def imports_of_vllm():
    """Every (file of vLLM, name or None) that a module under harness/engine/ imports."""
    for path in sorted(ENGINE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm"):
                for alias in node.names:
                    yield path.name, node.module, alias.name


def test_every_import_of_vllm_stands_in_the_table():
    """Whoever makes a hook of a new name adds it: as a name of its module, a class, or a module."""
    known = {(names.file, names.owner) for names in load_surface()}
    known |= {
        (names.file, name.partition("(")[0]) for names in load_surface() for name in names.names
    }
    unknown = []
    for user, module, name in imports_of_vllm():
        folder = module.removeprefix("vllm").strip(".").replace(".", "/")
        files = {f"{folder}.py", f"{folder}/__init__.py".lstrip("/")}
        as_module = f"{folder}/{name}.py".lstrip("/")
        if not any((file, name) in known for file in files) and not any(
            file == as_module for file, _ in known
        ):
            unknown.append(f"{user}: {module}.{name}")
    assert unknown == []


def test_the_fake_has_every_name_of_the_hooks():
    """The tests of the hooks run against names that are checked against real releases."""
    findings = check_surface(FAKE, [names for names in load_surface() if "hooks/" in names.used_by])
    assert [finding for finding in findings if finding.problem] == []


@pytest.mark.vllm
def test_the_pinned_release_has_every_name():
    """The table is the truth for the release that everything else is measured on."""
    root = locate_vllm(load_pins(patches_dir()).default).package_dir.parent
    assert [finding for finding in check_surface(root) if finding.problem] == []


# ---- pp-harness pin check --------------------------------------------------------------------


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(["pin", "check", *map(str, arguments)])
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


def test_pin_check_names_what_is_missing_and_who_needs_it(capsys, tree):
    """One line each: name, what relies on it, what was found; then the count; status 1."""
    root = tree(sequence="class IntermediateTensors:\n    def items(self): pass\n")
    status, out, _ = run(capsys, root)
    assert status == 1
    *lines, last = out.splitlines()
    assert (
        "vllm/sequence.py: IntermediateTensors.tensors: missing: no tensors "
        "(for all runs; harness/engine/hooks/tensors.py)"
    ) in lines
    total = len(check_surface(root))
    assert last == f"{total - len(lines)} of {total} names that the hooks rely on are in {root}"


@pytest.mark.vllm
def test_pin_check_reads_an_installed_release(capsys):
    """A version is that of a pin; all names are there: status 0, one line."""
    status, out, _ = run(capsys, load_pins(patches_dir()).default.version)
    assert status == 0
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("bad", ["9.9.9", "/nowhere/vllm", str(Path(__file__).parent)])
def test_pin_check_refuses_bad_input(capsys, bad):
    """No such pin, no such folder, a folder without vllm: one line that names it, status 2."""
    status, out, err = run(capsys, bad)
    assert (status, out) == (2, "")
    assert bad in err
    assert len(err.splitlines()) == 1


def test_the_check_imports_nothing_of_vllm():
    """Neither the release that it reads nor torch: it works where neither is installed."""
    program = f"""
import sys
from dataclasses import replace
from pathlib import Path
from harness.source.surface import check_surface
check_surface(Path({str(FAKE)!r}))
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"vllm", "torch", "numpy"}}))
"""
    root = str(ENGINE.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
