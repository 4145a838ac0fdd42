"""Finding a checkpoint: names, folders, hub ids, refusals, and the digest of its content."""

import json
import os
import socket

import pytest

from harness.errors import BadInputError
from harness.models import checkpoint as model
from harness.models.checkpoint import content_digest, resolve_model
from harness.models.hub import is_silent


@pytest.fixture
def checkpoint(tmp_path):
    """Make a folder that has the outside of a checkpoint."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_an_instrument_is_found_by_name():
    """A bundled name needs no path."""
    source = resolve_model("ple")
    assert source.name == "ple"
    assert source.is_instrument
    assert source.config["num_kv_shared_layers"] == 2
    assert len(source.digest) == 64


def test_a_folder_is_found_by_path(checkpoint):
    """A path gives the folder's name, config and digest."""
    source = resolve_model(str(checkpoint))
    assert (source.name, source.path) == ("tiny", checkpoint.resolve())
    assert not source.is_instrument


def test_a_folder_named_like_an_instrument_needs_a_path(checkpoint, monkeypatch):
    """The bundled name wins; ./name is the folder."""
    folder = checkpoint.rename(checkpoint.parent / "ple")
    monkeypatch.chdir(folder.parent)
    assert resolve_model("ple").is_instrument
    assert not resolve_model("./ple").is_instrument


def test_what_is_no_model_names_the_three_ways():
    """An unknown name tells what would have been understood."""
    with pytest.raises(BadInputError, match=r"'nothing'.*dense.*no folder.*owner/name"):
        resolve_model("nothing")


def test_a_folder_without_config_is_no_checkpoint(tmp_path):
    """The error names the folder and what should be in it."""
    with pytest.raises(BadInputError, match=r"no config\.json; give the folder"):
        resolve_model(str(tmp_path))


def test_a_file_is_no_checkpoint(checkpoint):
    """Whoever gives a file inside the folder is told to give the folder."""
    with pytest.raises(BadInputError, match="is a file; give the folder"):
        resolve_model(str(checkpoint / "config.json"))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_an_unreadable_config_is_bad_input(checkpoint, text):
    """Broken JSON, and JSON that is no object."""
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(BadInputError, match=r"config\.json"):
        resolve_model(str(checkpoint))


def test_a_folder_without_weights_is_no_checkpoint(checkpoint):
    """A config alone cannot be run."""
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(BadInputError, match=r"no \*\.safetensors"):
        resolve_model(str(checkpoint))


def test_a_missing_shard_is_named(checkpoint):
    """An interrupted download is told before an engine is started."""
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInputError, match=r"model-2\.safetensors is missing \(1 of 2"):
        resolve_model(str(checkpoint))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_unless_allowed(checkpoint, name):
    """Pickle runs code; it is used only on request."""
    (checkpoint / "model.safetensors").rename(checkpoint / name)
    with pytest.raises(BadInputError, match=r"pickled weights .*--pp-trust-pickle"):
        resolve_model(str(checkpoint))
    trusted = resolve_model(str(checkpoint), allow_pickle=True)
    assert trusted.name == "tiny"
    (checkpoint / name).write_bytes(b"other weights")
    assert resolve_model(str(checkpoint), allow_pickle=True).digest != trusted.digest


def test_a_pickle_beside_safetensors_does_no_harm(checkpoint):
    """Engines take the safetensors."""
    (checkpoint / "training_args.bin").write_bytes(b"")
    assert resolve_model(str(checkpoint)).name == "tiny"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_unless_allowed(checkpoint, name):
    """A checkpoint's own code is run only on request."""
    content = {"num_hidden_layers": 2, "auto_map": {"AutoModel": "code.Model"}}
    (checkpoint / name).write_text(json.dumps(content))
    with pytest.raises(BadInputError, match=r"auto_map.*--pp-trust-remote-code"):
        resolve_model(str(checkpoint))
    assert resolve_model(str(checkpoint), allow_remote_code=True).name == "tiny"


def test_digest_follows_content_and_not_place_or_time(checkpoint, tmp_path):
    """A copy has the same digest; a changed byte of weights, config or tokenizer another."""
    first = content_digest(checkpoint)
    moved = checkpoint.rename(tmp_path / "elsewhere")
    assert content_digest(moved) == first
    (moved / "README.md").write_text("changes nothing")
    assert content_digest(moved) == first
    seen = {first}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (moved / name).write_bytes((moved / name).read_bytes() + b" ")
        seen.add(content_digest(moved))
    assert len(seen) == 4


def test_a_large_file_is_not_read(checkpoint, monkeypatch):
    """Above the limit, size and time stand for content, so that a run need not read 60 GB."""
    monkeypatch.setattr(model, "HASH_LIMIT_BYTES", 4)
    weights = checkpoint / "model.safetensors"
    first = content_digest(checkpoint)
    status = weights.stat()
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_digest(checkpoint) == first
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert content_digest(checkpoint) != first


def test_a_hub_id_gives_its_snapshot(checkpoint, monkeypatch):
    """owner/name becomes the local folder, and only what a run needs is asked for."""
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def download(hub_id, allow_patterns):
        asked[hub_id] = allow_patterns
        return str(checkpoint)

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr("harness.models.hub.is_silent", lambda: False)
    source = resolve_model("owner/some-model")
    assert (source.name, source.path) == ("some-model", checkpoint)
    assert not any(pattern.endswith(".bin") for pattern in asked["owner/some-model"])


def test_an_unobtainable_hub_id_is_one_clear_error(monkeypatch):
    """Whatever the hub's client raises, the user reads one line with the fixes."""
    hub = pytest.importorskip("huggingface_hub")

    def download(*_args, **_keys):
        raise OSError("cannot reach it\nsecond line")

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr("harness.models.hub.is_silent", lambda: False)
    with pytest.raises(BadInputError, match=r"owner/model .*\(cannot reach it\); check the name"):
        resolve_model("owner/model")


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch):
    """Its client would wait for ever; what it has downloaded before is taken all the same."""
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(*_args, **keys):
        asked.append(keys.get("local_files_only"))
        raise OSError("not in the cache")

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr("harness.models.hub._SECONDS", 0.3)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert is_silent()
        with pytest.raises(BadInputError, match="not in the cache"):
            resolve_model("owner/model")
        refused = silent.getsockname()[1]
    assert asked == [True]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{refused}")
    assert not is_silent(), "a refused connection is an answer"
