"""Shapes: published models by their numbers alone, at full size or smaller."""

import json

import pytest

from harness.errors import BadInputError
from harness.models.checkpoint import resolve_model
from harness.models.partition import plan_partition
from harness.models.shape import PREFIX, read_shape, shape_names


def test_every_shape_has_the_structure_of_its_model():
    """The last layer attends to everything, and shared layers have sources before them."""
    for name in shape_names():
        _, config = read_shape(PREFIX + name)
        kinds = config["layer_types"]
        assert len(kinds) == config["num_hidden_layers"]
        assert kinds[-1] == "full_attention"
        owners = kinds[: len(kinds) - config["num_kv_shared_layers"]]
        assert set(owners) == {"full_attention", "sliding_attention"}


@pytest.mark.parametrize(
    ("name", "pp", "default_is_legal"),
    [
        ("E2B", 2, False),
        ("E4B", 2, True),
        ("E4B", 4, False),
        ("26B-A4B", 4, True),
        ("31B", 4, True),
    ],
)
def test_layer_splits_by_arithmetic(name, pp, default_is_legal):
    """The config alone tells the sizes at which vLLM's own layer split can be loaded."""
    plan = plan_partition(read_shape(PREFIX + name)[1], pp)
    assert (plan.layers_per_rank == plan.default_split) is default_is_legal


def test_a_shape_becomes_a_model_without_weights(tmp_path):
    """A config on disk, a digest of it, and nothing that claims to be a checkpoint."""
    model = resolve_model("shape:E4B", shapes_dir=tmp_path)
    assert (model.name, model.is_shape, model.is_instrument) == ("E4B", True, False)
    assert [path.name for path in model.path.iterdir()] == ["config.json"]
    assert json.loads((model.path / "config.json").read_text()) == model.config
    assert resolve_model("shape:E4B", shapes_dir=tmp_path) == model


def test_numbers_can_be_changed():
    """Another size of the same structure, under a name of its own."""
    name, config = read_shape("shape:E2B:layers=10:hidden=64:double_wide=0")
    assert name.startswith("E2B-")
    keys = "num_hidden_layers", "hidden_size", "use_double_wide_mlp", "num_attention_heads"
    assert [config[key] for key in keys] == [10, 64, False, 8]
    assert read_shape("shape:E2B:layers=10")[0] != name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shape:E5B", "no shape 'E5B': it is no folder, no FILE.json and none of E2B, E4B"),
        ("shape:E4B:depth=3", "'depth=3' is no change of a shape.*layers, hidden"),
        ("shape:E4B:layers=-3", "'layers=-3' is no change"),
        ("shape:E4B:layers", "'layers' is no change"),
        ("shape:E4B:layers=3", "3 layers hold none that attends"),
    ],
)
def test_what_is_no_shape_is_refused(text, message, tmp_path):
    """One error that names what there is."""
    with pytest.raises(BadInputError, match=message):
        resolve_model(text, shapes_dir=tmp_path)


def test_a_folder_is_taken_without_its_weights(tmp_path):
    """Its config, tokenizer and processor are; each of them is in the digest."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["A"], "vocab_size": 8}))
    bare = resolve_model(f"shape:{folder}", shapes_dir=tmp_path / "shapes")
    assert (bare.name, bare.path, bare.is_shape) == ("tiny", folder, True)
    assert not bare.has_processor
    (folder / "preprocessor_config.json").write_text("{}")
    seeing = resolve_model(f"shape:{folder}", shapes_dir=tmp_path / "shapes")
    assert seeing.has_processor
    assert seeing.digest != bare.digest
    assert not (tmp_path / "shapes").exists()
