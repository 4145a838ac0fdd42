"""The command `pp-harness store`: it shows what is on disk and removes only what it is told to."""

import os
import subprocess
import sys
import time

import pytest
from builders import make_cell
from click.testing import CliRunner

from harness.assets import default_store
from harness.capture.manifest import Manifest, Status
from harness.capture.store import Store
from harness.cli.main import cli
from harness.errors import BadInputError


@pytest.fixture
def store(tmp_path):
    """Give a store with two whole captures: `aa` made now, `bb` ten days ago."""
    store = Store(tmp_path / "store")
    for key in ("aa", "bb"):
        with store.workspace() as folder:
            (folder / "log.txt").write_text("log")
            cell = make_cell(variant=key)
            store.commit(key, folder, Manifest(cell=cell, status=Status.OK, seconds={"total": 7}))
    past = time.time() - 10 * 86400
    os.utime(store.folder("bb"), (past, past))
    return store


def run(store, *args):
    result = CliRunner().invoke(cli, ["store", *args, "--store", str(store.root)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def keys(store):
    return [key for key, _ in store.all()]


def test_ls_shows_each_capture_oldest_first(store):
    """Every capture is a line with its cell, status, age and seconds; the last line counts them."""
    lines = run(store, "ls").output.splitlines()
    assert lines[1].split() == ["bb", "bb-ple-pp2", "ok", "10.0", "7", "0.0"]
    assert lines[2].split()[:3] == ["aa", "aa-ple-pp2", "ok"]
    assert lines[-1].endswith("2 captures")


def test_ls_shows_an_unreadable_capture(store):
    """A capture whose manifest is broken is listed, not hidden and not a traceback."""
    (store.folder("aa") / "capture.json").write_text("{")
    assert "unreadable" in run(store, "ls").output


def test_verify_passes_whole_captures(store):
    """Nothing damaged: status 0."""
    result = run(store, "verify")
    assert (result.exit_code, "0 damaged" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("log.txt", "other", "log.txt differs from its digest"),
        ("capture.json", "{", "capture.json cannot be read"),
        ("capture.json", "{}", "capture.json cannot be read"),
        ("capture.json", "[]", "capture.json cannot be read"),
    ],
)
def test_verify_names_what_is_damaged(store, file, text, reason):
    """A changed file and an unusable manifest end in status 1, with key and reason."""
    (store.folder("aa") / file).write_text(text)
    result = run(store, "verify")
    assert result.exit_code == 1
    assert reason in next(line for line in result.output.splitlines() if line.startswith("aa: "))


def test_gc_asks_what_to_remove(store):
    """Without a choice nothing is removed."""
    with pytest.raises(BadInputError, match="--older-than DAYS"):
        run(store, "gc")
    assert keys(store) == ["aa", "bb"]


def test_gc_older_than(store):
    """Age decides, in days."""
    assert "removed 1 capture," in run(store, "gc", "--older-than", "5").output
    assert keys(store) == ["aa"]


def test_gc_damaged(store):
    """A damaged capture goes, a whole one stays."""
    (store.folder("aa") / "log.txt").unlink()
    run(store, "gc", "--damaged")
    assert keys(store) == ["bb"]


def test_gc_all_leaves_what_is_in_use(store):
    """A capture whose lock another run holds is named and left alone."""
    with store.lock("aa"):
        result = run(store, "gc", "--all")
    assert "aa: in use" in result.output
    assert keys(store) == ["aa"]


def test_gc_clears_what_dead_runs_left(store):
    """A workspace whose maker has died goes, with its lock; one that is in use stays."""
    program = (
        "import os, pathlib, sys\nfrom harness.capture.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).workspace() as folder:\n"
        "    (folder / 'half').touch()\n    os._exit(9)\n"
    )
    with store.workspace() as alive:
        before = set((store.root / "work").iterdir())
        subprocess.run([sys.executable, "-c", program, str(store.root)])
        assert len(set((store.root / "work").iterdir()) - before) == 2
        run(store, "gc", "--damaged")
        assert set((store.root / "work").iterdir()) == before
        assert alive.is_dir()


def test_a_mistyped_store_is_refused_and_not_made(tmp_path):
    """Reading commands create nothing."""
    missing = tmp_path / "none"
    with pytest.raises(BadInputError, match="no store there"):
        CliRunner().invoke(cli, ["store", "ls", "--store", str(missing)], catch_exceptions=False)
    assert not missing.exists()


def test_default_store_is_the_users_cache(monkeypatch, tmp_path):
    """Commands and sweeps without --store use one folder below the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store() == tmp_path / "pp-harness"
