"""The store: whole or absent, never half, and safe for several at once."""

import threading

import pytest
from builders import make_cell

from harness.capture.manifest import Manifest, Status, load_manifest
from harness.capture.store import Store, damage


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def commit(store, key="k", status="ok", text="content"):
    with store.workspace() as folder:
        (folder / "data.txt").write_text(text)
        return store.commit(key, folder, Manifest(cell=make_cell(), status=Status(status)))


def test_committed_capture_is_found(store):
    """What was committed comes back with its files and its manifest."""
    commit(store)
    capture = store.find("k")
    assert capture.status == "ok"
    assert (capture.folder / "data.txt").read_text() == "content"
    assert damage(capture.folder) is None


def test_absent_key_is_not_found(store):
    """A key that nobody committed gives None."""
    assert store.find("k") is None


def test_uncommitted_workspace_leaves_nothing(store):
    """A capture that was interrupted is gone, and was never visible."""

    def die(folder):
        (folder / "data.txt").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), store.workspace() as folder:
        die(folder)
    assert not folder.exists()
    assert list(store.all()) == []


def test_failed_capture_is_an_answer(store):
    """A crash with a cause is kept: the same cell would crash again."""
    commit(store, status="failed")
    assert store.find("k").status == "failed"


def test_blocked_capture_is_no_answer(store):
    """A blocked capture is not reused, and the next one takes its place."""
    commit(store, status="blocked")
    assert store.find("k") is None
    commit(store, status="ok", text="second")
    assert (store.find("k").folder / "data.txt").read_text() == "second"


def flip(folder, old, new):
    """Change the manifest by a few bits, so that it is still JSON."""
    text = (folder / "capture.json").read_text()
    assert old in text
    (folder / "capture.json").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "data.txt").write_text("other"), "data.txt differs"),
        (lambda folder: (folder / "data.txt").write_text(""), "data.txt differs"),
        (lambda folder: (folder / "data.txt").unlink(), "data.txt is missing"),
        (lambda folder: (folder / "rank9.jsonl").touch(), "rank9.jsonl was added"),
        (
            lambda folder: flip(folder, '"status": "ok"', '"status": "failed"'),
            "capture.json differs",
        ),
        (lambda folder: flip(folder, '"key": "k"', '"key": "j"'), "capture.json differs"),
    ],
)
def test_damaged_capture_is_absent(store, harm, reason):
    """A file that was changed or lost makes the capture unusable, and it is said which file."""
    folder = commit(store).folder
    harm(folder)
    assert store.find("k") is None
    assert damage(folder).startswith(reason)
    commit(store)
    assert store.find("k") is not None


def test_swapped_captures_are_absent(store):
    """A capture that stands, whole, in the place of another is not taken for it."""
    one, other = commit(store, "one").folder, commit(store, "other").folder
    one.rename(store.root / "aside")
    other.rename(one)
    (store.root / "aside").rename(other)
    assert store.find("one") is None
    assert store.find("other") is None
    assert store.damaged("one").startswith("it is the capture other")


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_unreadable_manifest_is_absent(store, text):
    """A manifest that cannot be read is no capture, and does not stop a listing."""
    folder = commit(store).folder
    (folder / "capture.json").write_text(text)
    assert store.find("k") is None
    assert list(store.all()) == [("k", None)]


def test_a_folder_in_a_capture_belongs_to_it(store):
    """An engine that ran an adapter leaves it there: the capture is whole, and it cannot change."""
    with store.workspace() as folder:
        (folder / "adapter").mkdir()
        (folder / "adapter/weights").write_text("1")
        capture = store.commit("k", folder, Manifest(cell=make_cell(), status=Status.OK))
    assert store.find("k") is not None
    (capture.folder / "adapter/weights").write_text("2")
    assert damage(capture.folder) == "adapter/weights differs from its digest"
    (capture.folder / "adapter/weights").write_text("1")
    (capture.folder / "adapter/more").write_text("")
    assert damage(capture.folder) == "adapter/more was added to it"


def test_manifest_names_every_file(store):
    """The manifest carries its key and a digest of each file."""
    capture = commit(store)
    manifest = load_manifest(capture.folder)
    assert manifest.key == "k"
    assert set(manifest.files) == {"data.txt"}


def test_concurrent_commits_leave_one_whole_capture(store):
    """Several writers of one key under its lock end with one capture that is whole."""
    problems = []

    def write(number):
        try:
            with store.lock("k"):
                if store.find("k") is None:
                    commit(store, text=f"writer {number}")
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert damage(store.find("k").folder) is None
    assert [key for key, _ in store.all()] == ["k"]


def test_lock_excludes_another_thread(store):
    """Two threads of one process exclude each other, as two processes do."""
    order = []
    with store.lock("k"):
        thread = threading.Thread(target=lambda: [store.lock("k").acquire(), order.append("in")])
        thread.start()
        thread.join(0.3)
        order.append("out")
    thread.join(5)
    assert order == ["out", "in"]


def test_removed_capture_is_gone(store):
    """Removing a capture removes its folder; removing it again is no error."""
    folder = commit(store).folder
    store.remove("k")
    store.remove("k")
    assert not folder.exists()
