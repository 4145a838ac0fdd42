"""A git checkout: what its base and its work tree change, and which checkouts are refused."""

import dataclasses
import os

import pytest
from checkouts import FILES, OPS, Checkout, release_checkout

from harness.assets import patches_dir
from harness.errors import BadInputError
from harness.source.checkout import changed_since, open_checkout, read_checkout
from harness.source.compiled import CompiledDifference
from harness.source.pin import Pins, installed_releases, load_pins
from harness.source.series import load_series
from harness.source.tree import build_tree

WHEEL = {
    name: text
    for name, text in FILES.items()
    if name.startswith("vllm/") and name != "vllm/left_out.md"
} | {"vllm/_C.abi3.so": "\x7fELF", "vllm/_version.py": "generated\n"}


@pytest.fixture
def checkout(tmp_path):
    """Give a repository whose first commit is release 1.2.3, with a branch of two commits."""
    checkout = Checkout(tmp_path / "work" / "vllm").init()
    checkout.commit(FILES, "release")
    checkout.git("tag", "v1.2.3")
    checkout.git("switch", "-q", "-c", "topic")
    return checkout


@pytest.fixture
def pins(site):
    """Give two pins, of which the first is the default."""
    return Pins(site.pin(), (site.pin(), site.pin(version="9.9.9")))


@pytest.fixture
def read(checkout, site, pins):
    """Give a function that reads the checkout against the installed release 1.2.3."""
    site.install(files=WHEEL)

    def read(folder=checkout.path, **options):
        return read_checkout(folder, pins, lambda pin: site.locate(version=pin.version), **options)

    return read


def changes(checkout):
    """Return the files that each variant changes in the release."""
    return {variant.name: dict(variant.files) for variant in checkout.variants}


def test_base_and_worktree_are_what_git_has(checkout, read):
    """Base is the commit where the branch left main; the work tree has all that came after."""
    checkout.commit({"vllm/a.py": "committed\n", "vllm/new/n.py": "n\n"})
    checkout.write("vllm/b.py", "unstaged\n")
    checkout.write("vllm/staged.py", "staged\n")
    checkout.git("add", "vllm/staged.py")
    checkout.write("vllm/untracked.py", "untracked\n")
    checkout.write("vllm/untracked.txt", "notes\n")
    (checkout.path / "vllm/model_executor/models/m.py").unlink()
    result = read()
    assert result.base_name == "main"
    assert changes(result) == {
        "base": {},
        "worktree": {
            "vllm/a.py": b"committed\n",
            "vllm/b.py": b"unstaged\n",
            "vllm/model_executor/models/m.py": None,
            "vllm/new/n.py": b"n\n",
            "vllm/staged.py": b"staged\n",
            "vllm/untracked.py": b"untracked\n",
        },
    }


def test_a_base_after_the_release_keeps_its_own_changes(checkout, read):
    """Changes of main since the release belong to base, and to the work tree as well."""
    checkout.git("switch", "-q", "main")
    checkout.commit({"vllm/a.py": "main\n", "vllm/later.py": "later\n"})
    checkout.git("rm", "-q", "vllm/b.py")
    checkout.commit()
    checkout.git("switch", "-q", "-C", "topic")
    checkout.commit({"vllm/a.py": "topic\n"})
    base, worktree = changes(read()).values()
    assert base == {"vllm/a.py": b"main\n", "vllm/later.py": b"later\n", "vllm/b.py": None}
    assert worktree == base | {"vllm/a.py": b"topic\n"}


def test_base_is_a_merge_base(checkout, read):
    """Commits of main after the branch left it are no part of base."""
    checkout.commit({"vllm/a.py": "topic\n"})
    checkout.git("switch", "-q", "main")
    checkout.commit({"vllm/b.py": "after\n"})
    checkout.git("switch", "-q", "topic")
    assert changes(read()) == {"base": {}, "worktree": {"vllm/a.py": b"topic\n"}}
    assert changes(read(base="HEAD"))["base"] == {"vllm/a.py": b"topic\n"}


def test_without_main_the_nearest_release_is_the_base(checkout, read):
    """A clone of one branch has no main; candidates for a release are no releases."""
    checkout.git("branch", "-D", "-q", "main")
    checkout.commit({"vllm/a.py": "topic\n"})
    checkout.git("tag", "v1.2.4rc1")
    assert read().base_name == "v1.2.3"


def test_reading_writes_nothing_and_heeds_no_outer_git(checkout, read, monkeypatch, tmp_path):
    """Not a byte of checkout or repository changes, inside another repository's hook too."""
    checkout.write("vllm/a.py", "changed\n")
    other = Checkout(tmp_path / "other").init()
    checkout.git("config", "core.fsmonitor", "touch ran #")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.path / ".git/index"))
    before = checkout.snapshot()
    assert changes(read())["worktree"] == {"vllm/a.py": b"changed\n"}
    assert changed_since(open_checkout(checkout.path), "v1.2.3", "vllm") == ["vllm/a.py"]
    assert checkout.snapshot() == before


def test_worktrees_and_folders_inside_are_checkouts_too(checkout, read, tmp_path):
    """`git worktree` and a folder below the root name the checkout that they belong to."""
    checkout.git("worktree", "add", "-q", str(tmp_path / "tree"), "-b", "other")
    (tmp_path / "tree/vllm/a.py").write_text("there\n")
    assert changes(read(tmp_path / "tree"))["worktree"] == {"vllm/a.py": b"there\n"}
    assert changes(read(checkout.path / "vllm"))["worktree"] == {}


def test_trees_are_shared_by_content(checkout, read, site, tmp_path):
    """Base at the release is the release's own tree; compiled and generated files are its own."""
    checkout.write("vllm/a.py", "changed\n")
    (checkout.path / "vllm/b.py").unlink()
    base, worktree = read().variants
    installed = site.locate()
    trees = {each: build_tree(installed, each, tmp_path / "cache") for each in (base, worktree)}
    release = build_tree(
        installed, dataclasses.replace(base, name="other", files={}), tmp_path / "cache"
    )
    assert trees[base].path == release.path
    tree = trees[worktree].path
    assert (tree / "vllm/a.py").read_text() == "changed\n"
    assert not (tree / "vllm/b.py").exists()
    assert not (tree / "vllm/left_out.md").exists()
    for name in ("vllm/_C.abi3.so", "vllm/_version.py", "vllm/__init__.py"):
        assert (tree / name).samefile(site.path / name)


COMPILED = {
    "kernel": ({"csrc/ops.cu": "// changed\n"}, "csrc/ops.cu"),
    "new kernel": ({"csrc/new/k.cu": "// new\n"}, "csrc/new/k.cu"),
    "build": ({"cmake/utils.cmake": "# changed\n"}, "cmake/utils.cmake"),
    "build file": ({"CMakeLists.txt": "# new\n"}, "CMakeLists.txt"),
}


@pytest.mark.parametrize("case", COMPILED)
def test_compiled_changes_of_the_branch_are_refused(checkout, read, case):
    """No compiled files have what the branch itself changes in their sources."""
    files, name = COMPILED[case]
    checkout.commit(files)
    words = f"the branch changes what is compiled .{name}.*--pp-base and --pp-base-version"
    with pytest.raises(BadInputError, match=words):
        read()


def test_a_vllm_built_with_the_change_is_taken(checkout, pins, site):
    """The way out that the error names: a pin and a tag of the commit that was built."""
    checkout.git("tag", "v9.9.9", checkout.commit({"csrc/cpu/ops.cpp": "// changed\n"}))
    checkout.write("vllm/a.py", "changed\n")
    site.install(version="9.9.9", files=WHEEL)
    result = read_checkout(
        checkout.path, pins, lambda pin: site.locate(version=pin.version), base="v9.9.9"
    )
    assert changes(result) == {"base": {}, "worktree": {"vllm/a.py": b"changed\n"}}
    assert result.compiled == CompiledDifference("9.9.9", 0, ())


def test_a_deleted_kernel_is_refused(checkout, read):
    """A kernel that is gone differs as much as one that changed."""
    (checkout.path / "csrc/ops.cu").unlink()
    with pytest.raises(BadInputError, match=r"csrc/ops\.cu"):
        read()


def test_compiled_changes_of_the_base_are_listed(checkout, read):
    """Main may be ahead of the release in compiled code: what differs for the device is named."""
    checkout.git("switch", "-q", "main")
    ops = OPS.replace("int n", "int n, int m") + 'ops.def("new() -> ()");\n'
    checkout.commit({"csrc/ops.cu": "// changed\n", "csrc/cpu/ops.cpp": ops})
    checkout.git("switch", "-q", "-C", "topic")
    assert read().compiled == CompiledDifference("1.2.3", 1, ("changed", "new"))


def test_the_release_that_built_the_files_is_compared(checkout, site, pins):
    """A pin may have another release's compiled files: then that release's tag counts."""
    checkout.git("tag", "v9.9.9", checkout.commit({"csrc/cpu/ops.cpp": "// none\n"}))
    checkout.git("switch", "-q", "-C", "topic", "main")
    site.install(version="1.2.3+compiled.9.9.9", files=WHEEL)
    (installed,) = installed_releases(site.pin(), [site.path])
    compiled = read_checkout(checkout.path, pins, lambda _: installed).compiled
    assert compiled == CompiledDifference("9.9.9", 1, ("changed", "inferred", "kept"))


def test_an_op_is_compared_by_its_schema(checkout, read):
    """Blanks, other functions and ops that are gone change nothing for a caller."""
    checkout.git("switch", "-q", "main")
    ops = 'm.def( "changed(Tensor x,"\n  "int n) -> Tensor");\nops.def("inferred", &other);\n'
    checkout.commit({"csrc/cpu/ops.cpp": ops})
    assert read().compiled == CompiledDifference("1.2.3", 1, ())


LENDERS = {
    "the release": ("v1.2.3", "1.2.3"),
    "after a later release": ("v1.3.0", "1.2.3"),
    "a candidate of the newest": ("v9.9.9rc2", "1.2.3"),
    "the newest": ("v9.9.9", "9.9.9"),
    "newer than the newest": ("v9.9.9.post1", "9.9.9"),
    "a candidate after the newest": ("v10.0.0rc0", "9.9.9"),
}


@pytest.mark.parametrize("case", LENDERS)
@pytest.mark.usefixtures("read")
def test_the_newest_pin_that_is_not_newer_lends(checkout, pins, site, case):
    """The base's nearest tag decides, a candidate's too: releases are tagged off main."""
    tag, lender = LENDERS[case]
    checkout.git("switch", "-q", "--detach", "main")
    checkout.commit(message="release 9.9.9")
    checkout.git("tag", "v9.9.9")
    checkout.git("switch", "-q", "-C", "topic", "main")
    checkout.commit()
    checkout.git("tag", "-f", tag)
    checkout.git("branch", "-f", "main")
    result = read_checkout(
        checkout.path, pins, lambda pin: dataclasses.replace(site.locate(), version=pin.version)
    )
    assert (result.pin.version, result.compiled.release) == (lender, lender)


def test_a_base_older_than_each_pin_is_refused(checkout, read):
    """A release that is newer than the base is taken only if the user names it."""
    checkout.git("tag", "v1.2.2", "main")
    checkout.git("tag", "-d", "v1.2.3")
    with pytest.raises(BadInputError, match=r"follows v1\.2\.2.*newer \(1\.2\.3, 9\.9\.9\)"):
        read()
    checkout.git("tag", "v1.2.3", "main")
    assert read(version="1.2.3").pin.version == "1.2.3"


def test_a_clone_without_tags_says_what_to_fetch(checkout, read):
    """The base's release and the lender's files are known by their tags."""
    checkout.git("tag", "-d", "v1.2.3")
    with pytest.raises(BadInputError, match=r"no release tag before the base.*git fetch --tags"):
        read()
    with pytest.raises(BadInputError, match=r"has no tag v1\.2\.3.*git fetch --tags"):
        read(version="1.2.3")


def not_git(checkout):
    (checkout.path / ".git").rename(checkout.path / "git")


def not_vllm(checkout):
    checkout.git("rm", "-rq", "vllm/model_executor")


def in_conflict(checkout):
    checkout.commit({"vllm/a.py": "ours\n"})
    checkout.git("switch", "-q", "main")
    checkout.commit({"vllm/a.py": "theirs\n"})
    with pytest.raises(Exception, match="merge"):
        checkout.git("merge", "topic")


def link(checkout):
    (checkout.path / "vllm/a.py").unlink()
    (checkout.path / "vllm/a.py").symlink_to("b.py")


def committed_link(checkout):
    checkout.git("switch", "-q", "main")
    link(checkout)
    checkout.commit()
    (checkout.path / "vllm/a.py").unlink()


def orphan(checkout):
    checkout.git("switch", "-q", "--orphan", "lonely")
    checkout.commit(FILES)


def unnamed(checkout):
    checkout.git("branch", "-D", "-q", "main")
    checkout.git("tag", "-d", "v1.2.3")


REFUSED = {
    "not git": (not_git, {}, "not a git checkout with files.*clone vLLM with git"),
    "not vLLM": (not_vllm, {}, "not a vLLM tree"),
    "conflict": (in_conflict, {}, "vllm/a.py is in conflict; finish or abort the merge"),
    "link": (link, {}, "is a symbolic link; replace it"),
    "committed link": (committed_link, {}, "is a symbolic link in commit"),
    "unrelated": (orphan, {}, "HEAD and main share no commit"),
    "unnamed": (unnamed, {}, "no release tag; name with --pp-base REV"),
    "unknown revision": (None, {"base": "gone"}, "has no commit 'gone'"),
    "option as revision": (None, {"base": "--all"}, "has no commit '--all'"),
    "unknown release": (None, {"version": "0.0.1"}, "no pin for vLLM 0.0.1; known: 1.2.3, 9.9.9"),
    "release that is not installed": (None, {"version": "9.9.9"}, "9.9.9"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_checkouts_are_refused_with_the_fix(checkout, read, case):
    """An unusable checkout ends in one error, and nothing of it is touched."""
    prepare, options, words = REFUSED[case]
    if prepare is not None:
        prepare(checkout)
    before = checkout.snapshot()
    with pytest.raises(BadInputError, match=words):
        read(**options)
    assert checkout.snapshot() == before


def test_a_folder_that_is_not_there_is_refused(read, tmp_path):
    """A path that leads nowhere is named."""
    with pytest.raises(BadInputError, match="gone: no such folder"):
        read(tmp_path / "gone")


def test_a_shallow_clone_says_how_to_deepen_it(checkout, read, tmp_path):
    """A clone that lacks the base says so, and how to get it."""
    checkout.commit({"vllm/a.py": "topic\n"})
    checkout.git(
        *("clone", "-q", "--depth", "1", "--no-local", "--branch", "topic"),
        *(f"file://{checkout.path}", str(tmp_path / "shallow")),
    )
    with pytest.raises(BadInputError, match="shallow: run git fetch --unshallow --tags"):
        read(tmp_path / "shallow", base="main")


def test_a_partial_clone_says_how_to_complete_it(checkout, read, tmp_path):
    """Reading makes git fetch nothing that a clone left out; the error has the command for it."""
    checkout.git("switch", "-q", "main")
    checkout.commit({"vllm/a.py": "main\n"})
    checkout.git("switch", "-q", "-C", "topic")
    checkout.commit({"vllm/a.py": "topic\n"})
    checkout.git("config", "uploadpack.allowFilter", "true")
    partial = Checkout(tmp_path / "partial")
    checkout.git(
        *("clone", "-q", "--filter=blob:none", "--no-local", "--branch", "topic"),
        *(f"file://{checkout.path}", str(partial.path)),
    )
    before = partial.snapshot()
    with pytest.raises(BadInputError, match=r"partial clone.*archive \w+ vllm") as refused:
        read(partial.path)
    assert partial.snapshot() == before
    partial.git("archive", "--output=out.tar", *str(refused.value).split()[-4:-2])
    assert changes(read(partial.path))["base"] == {"vllm/a.py": b"main\n"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_checkout_of_another_user_says_how_to_trust_it(checkout, read):
    """git refuses folders of other users; the error passes on the fix."""
    for path in (checkout.path, checkout.path / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(BadInputError, match=r"another user.*safe\.directory"):
        read()


def test_a_missing_git_is_named(checkout, read, monkeypatch, tmp_path):
    """A machine without the git program ends in an error that names it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInputError, match="cannot run git"):
        read()


@pytest.mark.vllm
def test_a_checkout_of_the_release_is_the_series(real_vllm, real_pin, tmp_path):
    """0001 committed and 0002 uncommitted give the very trees of `merged` and `fixed`."""
    checkout = release_checkout(tmp_path / "vllm", real_vllm)
    read = read_checkout(checkout.path, load_pins(patches_dir()), lambda _: real_vllm)
    series = load_series(patches_dir() / real_pin.series).variants()
    digests = [
        [build_tree(real_vllm, each, tmp_path / "cache").digest for each in variants]
        for variants in (read.variants, series[1:])
    ]
    assert digests[0] == digests[1]
