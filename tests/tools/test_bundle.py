"""A bundle holds what the target lacks, in parts that prove themselves."""

import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness.errors import BadInputError
from tools.bundle.fill import slim
from tools.bundle.pack import pack, parse_size
from tools.bundle.plan import read_bundle, read_have, resolve

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make_wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        metadata = "\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)])
        wheel.writestr(f"{info}/METADATA", metadata + "\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of four: `engine` needs `torchy` 2 exactly, `maths` below 3, and `extra`."""
    links = tmp_path / "wheels"
    make_wheel(links, "engine", "1.0", "torchy==2.0", "maths<3", "extra")
    for version in ("2.0", "2.1"):
        make_wheel(links, "torchy", version)
    for version in ("1.0", "2.0", "2.5", "3.0"):
        make_wheel(links, "maths", version)
    make_wheel(links, "extra", "1.0", "deep")
    make_wheel(links, "deep", "1.0")
    monkeypatch.setenv("UV_FIND_LINKS", str(links))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("engine==1.0\ntorchy==2.0\nmaths==2.0\nextra==1.0\ndeep==1.0\n")
    return constraints


def test_have_reads_what_pip_freeze_prints(tmp_path):
    """Versions where they are given, comments and local paths too; names in one spelling."""
    file = tmp_path / "have.txt"
    file.write_text("# image\nTorch==2.11.0+cu130\nmy.Pkg @ file:///opt/x\n-e /src\nnumpy\n\n")
    assert read_have(file) == {"torch": "2.11.0+cu130", "my-pkg": None, "numpy": None}


def test_have_names_the_line_that_is_none(tmp_path):
    """A line that is no requirement is refused with its number."""
    file = tmp_path / "have.txt"
    file.write_text("torch==2.11.0\nPackage    Version\n")
    with pytest.raises(BadInputError, match=r"have.txt:2: .*pip freeze"):
        read_have(file)
    with pytest.raises(BadInputError, match="cannot be read"):
        read_have(tmp_path / "none.txt")


def test_what_the_target_has_stays_where_it_fits(index):
    """A fitting version stays, another than the tested one too; the rest comes as constrained."""
    have = {"torchy": "2.0", "maths": "2.5"}
    plan = resolve(["engine"], index, [], have, [], PYTHON)
    assert plan.left_out == {"torchy": "2.0", "maths": "2.5"}
    assert plan.bundled == {"engine": "1.0", "extra": "1.0", "deep": "1.0"}


def test_what_does_not_fit_is_replaced_by_the_tested_version(index):
    """A version that the requirements refuse comes as constrained, not as the newest."""
    have = {"torchy": "2.1", "maths": "3.0"}
    plan = resolve(["engine"], index, [], have, [], PYTHON)
    assert plan.left_out == {}
    assert (plan.bundled["torchy"], plan.bundled["maths"]) == ("2.0", "2.0")


def test_a_local_version_is_the_release(index):
    """torchy 2.0+cu130 on the target is torchy 2.0."""
    plan = resolve(["engine"], index, [], {"torchy": "2.0+cu130"}, [], PYTHON)
    assert plan.left_out == {"torchy": "2.0"}


def test_without_takes_along_what_only_it_needs(index):
    """A package that is left out by name leaves with its own needs."""
    plan = resolve(["engine"], index, [], {}, ["extra"], PYTHON)
    assert set(plan.bundled) == {"engine", "torchy", "maths"}


def test_no_solution_is_bad_input(index):
    """What uv says reaches the user."""
    with pytest.raises(BadInputError, match=r"no set of packages fits(?s:.*)maths==2.0"):
        resolve(["engine", "maths>=3"], index, [], {}, [], PYTHON)


@pytest.fixture
def site(tmp_path):
    root = tmp_path / "site"
    info = root / "pkg-1.dist-info"
    for name in (
        "pkg/__init__.py",
        "pkg/kernels/_fa2_C.so",
        "pkg/kernels/_fa3_C.so",
        "pkg/inc/a.h",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name * 1000)
    info.mkdir()
    names = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*")) if p.is_file()]
    with (info / "RECORD").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([[n, "sha256=x", "1"] for n in names])
    return root


def test_slim_removes_files_and_their_records(site):
    """RECORD lists what is left, so that the install is what its metadata says."""
    saved = slim(site, ["_fa2*", "pkg/inc"])
    left = {p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file()}
    assert left == {"pkg/__init__.py", "pkg/kernels/_fa3_C.so", "pkg-1.dist-info/RECORD"}
    assert saved == len("pkg/kernels/_fa2_C.so") * 1000 + len("pkg/inc/a.h") * 1000
    record = (site / "pkg-1.dist-info" / "RECORD").read_text()
    assert record == "pkg/__init__.py,sha256=x,1\npkg/kernels/_fa3_C.so,sha256=x,1\n"


def test_slim_refuses_a_pattern_that_matches_nothing(site):
    """A misspelt pattern would make a bundle that is too large, in silence."""
    with pytest.raises(BadInputError, match="--slim _fa4"):
        slim(site, ["_fa4*"])


@pytest.mark.parametrize(("text", "size"), [("55M", 55 << 20), ("7", 7), ("2g", 2 << 30)])
def test_sizes(text, size):
    """K, M and G are powers of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1M", "5 parts", "1.5G"])
def test_what_is_no_size_is_refused(text):
    """A size that is none never becomes one."""
    with pytest.raises(BadInputError, match="--split"):
        parse_size(text)


def install(out: Path, target: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(out / "install.sh"), str(target)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, **env},
    )


@pytest.fixture
def bundle(site, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    parts = pack(site, out, 300, PYTHON, {"pytest": pytest.__version__})
    assert len(parts) > 1
    return out


def test_the_same_content_gives_the_same_parts(site, bundle, tmp_path):
    """So that after a damaged transfer only the damaged part travels again."""
    again = tmp_path / "again"
    again.mkdir()
    for path in site.rglob("*"):
        path.touch()
    pack(site, again, 300, PYTHON, {"pytest": pytest.__version__})
    for path in bundle.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    assert all(part.stat().st_size <= 300 for part in bundle.glob("bundle.part*"))


def test_install_gives_the_folder_back(site, bundle, tmp_path):
    """Every file with its content; a second run finds it done, another bundle's folder is kept."""
    target = tmp_path / "target"
    done = install(bundle, target)
    assert (done.returncode, done.stderr) == (0, "")
    for path in (p for p in site.rglob("*") if p.is_file()):
        assert (target / path.relative_to(site)).read_bytes() == path.read_bytes()
    assert f"PYTHONPATH={target}" in done.stdout
    assert "already" in install(bundle, target).stdout
    (target / ".bundle").write_text("another")
    refused = install(bundle, target)
    assert refused.returncode == 2
    assert "holds something else" in refused.stderr


def test_install_names_missing_and_damaged_parts(bundle, tmp_path):
    """All of them at once, and nothing is installed; it goes on once they are there."""
    parts = sorted(bundle.glob("bundle.part*"))
    whole = {part: part.read_bytes() for part in parts}
    parts[0].unlink()
    parts[1].write_bytes(whole[parts[1]][:-1])
    refused = install(bundle, tmp_path / "target")
    assert refused.returncode == 1
    assert f"{parts[0].name} is missing" in refused.stderr
    assert f"{parts[1].name} is damaged" in refused.stderr
    assert not (tmp_path / "target").exists()
    for part, content in whole.items():
        part.write_bytes(content)
    assert install(bundle, tmp_path / "target").returncode == 0


def test_install_refuses_another_python(site, tmp_path):
    """Compiled files are for one Python."""
    pack(site, tmp_path, 1 << 20, "3.7", {})
    refused = install(tmp_path, tmp_path / "target")
    assert refused.returncode == 2
    assert "for Python 3.7" in refused.stderr


def test_install_checks_what_was_left_out(site, tmp_path):
    """What --have promised and is not there fails; another version is said."""
    pack(site, tmp_path, 1 << 20, PYTHON, {"no-such-thing": "1.0", "pytest": "0.1"})
    done = install(tmp_path, tmp_path / "target")
    assert done.returncode == 1
    assert "no-such-thing==1.0" in done.stderr
    assert f"pytest is {pytest.__version__} here, planned with 0.1" in done.stdout


def test_a_bundle_upon_another_finds_what_that_brought(site, tmp_path):
    """The second counts on the first, which is on PYTHONPATH; both are, in the order to use."""
    first, second = tmp_path / "first", tmp_path / "second"
    info = first / "engine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: engine\nVersion: 1.0\n")
    pack(site, tmp_path, 1 << 20, PYTHON, {"engine": "1.0"})
    assert "engine==1.0" in install(tmp_path, second).stderr
    done = install(tmp_path, second, PYTHONPATH=str(first))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"export PYTHONPATH={second}:{first}\n")


def test_upon_reads_what_another_bundle_brings(tmp_path):
    """The versions that its folder says; a folder without a bundle is refused."""
    (tmp_path / "site.json").write_text('["3.12", {"engine": "1.0"}, [], "digest"]')
    assert read_bundle(tmp_path) == {"engine": "1.0"}
    for content in (None, "", "{}", '["3.12", ["engine"], []]'):
        (tmp_path / "site.json").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "site.json").write_text(content)
        with pytest.raises(BadInputError, match="holds no bundle"):
            read_bundle(tmp_path)


def repack(out, entries):
    """Put another archive in the place of a bundle's parts, with checksums that agree."""
    for part in out.glob("bundle.part*"):
        part.unlink()
    with tarfile.open(out / "bundle.part01", "w:xz") as archive:
        for name, size in entries:
            entry = tarfile.TarInfo(name)
            entry.size = size
            archive.addfile(entry, io.BytesIO(bytes(size)))
    parts = [out / "bundle.part01", out / "needs.txt"]
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in parts]
    (out / "SHA256SUMS").write_text("".join(sums))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("bomb", 64 << 20)], "hold more than the bundle was made of"),
        ([(f"bomb{number}", 100) for number in range(1000)], "hold more than"),
        ([("../outside", 1)], "OutsideDestinationError"),
        ([("/outside", 1)], ""),
    ],
)
def test_install_unpacks_no_bomb_and_nothing_outside(bundle, tmp_path, entries, words):
    """What was not packed here is not unpacked: more than was packed, or a file elsewhere."""
    repack(bundle, entries)
    done = install(bundle, tmp_path / "folder" / "target")
    assert words in done.stderr
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "folder" / "outside").exists()
    assert not Path("/outside").exists()
    if words:
        assert done.returncode == 1
        assert not list(tmp_path.glob("folder/*"))
