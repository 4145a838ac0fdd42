"""The builder: what it refuses, that it writes whole or not at all, that it repeats itself."""

import json
from dataclasses import replace

import pytest

from harness.errors import BadInputError, HarnessError
from harness.models.checkpoint import content_digest
from harness.models.instruments import instrument_path
from tools.instruments.build import build_instrument
from tools.instruments.recipes import RECIPES

pytestmark = pytest.mark.vllm  # needs torch and transformers


@pytest.fixture(autouse=True)
def _torch():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")


def short(name, **settings):
    """Return a bundled recipe with one step on 8 problems: its model has learned nothing."""
    return replace(RECIPES[name], **{"steps": 1, "problems": 8, "batch": 8, **settings})


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    """Only an instrument is replaced."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInputError, match="holds no instrument"):
        build_instrument(RECIPES["ple"], tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_an_untrained_model_is_refused_and_nothing_is_left(tmp_path):
    """Below the stated accuracy no checkpoint appears, and no rubbish beside it."""
    with pytest.raises(HarnessError, match="nothing was written"):
        build_instrument(short("dense"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_builds_the_same_checkpoint(tmp_path):
    """Two builds agree byte for byte; another seed differs; an older one is replaced."""
    digests = []
    for seed in (3, 3, 4):
        build_instrument(short("ple", seed=seed), tmp_path / "out", check=False)
        digests.append(content_digest(tmp_path / "out"))
    assert digests[0] == digests[1] != digests[2]
    assert [folder.name for folder in tmp_path.iterdir()] == ["out"]


def test_the_shipped_random_one_is_its_recipe_byte_for_byte(tmp_path):
    """`mm` is built again as shipped, and loads whole in transformers with its processor."""
    transformers = pytest.importorskip("transformers")
    shipped = instrument_path("mm")
    built = build_instrument(RECIPES["mm"], tmp_path / "mm")
    if built["versions"] == json.loads((shipped / "instrument.json").read_text())["versions"]:
        assert content_digest(tmp_path / "mm") == content_digest(shipped)
    model, loading = transformers.Gemma4ForConditionalGeneration.from_pretrained(
        shipped, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    processor = transformers.AutoProcessor.from_pretrained(shipped)
    assert processor.image_token_id == model.config.image_token_id


def test_a_built_checkpoint_is_loaded_by_transformers(tmp_path):
    """The files are complete for transformers, tokenizer included, and tell each step."""
    transformers = pytest.importorskip("transformers")
    seen = []
    card = build_instrument(
        short("moe", steps=2),
        tmp_path / "moe",
        check=False,
        on_progress=lambda step, *_: seen.append(step),
    )
    assert seen == [1, 2]
    assert card == json.loads((tmp_path / "moe" / "instrument.json").read_text())
    _, loading = transformers.Gemma4ForCausalLM.from_pretrained(
        tmp_path / "moe", output_loading_info=True
    )
    assert not loading["missing_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "moe")
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id == 2
    assert tokenizer.eos_token_id == 1
