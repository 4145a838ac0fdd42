"""Images in prompts: marked as the model's processor wants it, and the same in every pass."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from harness.engine.images import ImagePrompts, prompt_of
from harness.engine.probes import ProbeRequest

pytest.importorskip("PIL", reason="vLLM brings it")
MARK = (7, 0, 9)
LLM = SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=SimpleNamespace(model_config=None)))


@pytest.fixture
def limits(monkeypatch):
    """What the model's processor in vLLM says that it reads: one image, or more."""
    limits = {"image": None}
    processor = SimpleNamespace(
        info=SimpleNamespace(
            get_supported_mm_limits=lambda: limits,
            get_tokenizer=lambda: SimpleNamespace(
                encode=lambda text, add_special_tokens: {"<image>": list(MARK)}[text]
            ),
        ),
        dummy_inputs=SimpleNamespace(get_dummy_text=lambda counts: "<image>" * counts["image"]),
    )
    module = ModuleType("vllm.multimodal")
    module.MULTIMODAL_REGISTRY = SimpleNamespace(create_processor=lambda _config: processor)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return limits


def test_images_stand_evenly_in_a_prompt_and_nothing_else_looks_like_their_mark(limits):
    """A processor takes the first ids that look so: a stray one would take the image's place."""
    request = ProbeRequest("images", (5, 7, 6, 9, 0, 8), (1,), images=2)
    prompt = ImagePrompts(LLM).prompt(request)
    assert prompt["prompt_token_ids"] == [5, 1, *MARK, 6, 1, *MARK, 1, 8]
    assert len(prompt["multi_modal_data"]["image"]) == 2


def test_a_prompt_without_images_is_left_alone(limits):
    """Ids that look like a mark too: no processor reads it."""
    request = ProbeRequest("text", (5, 7, 6), (1,))
    assert prompt_of(request, ImagePrompts(LLM)) == {"prompt_token_ids": [5, 7, 6]}


def test_a_request_sees_the_same_in_every_pass_and_no_other_does(limits):
    """A floor pass repeats what PP=1 computed."""

    def pixels(name):
        prompt = ImagePrompts(LLM).prompt(ProbeRequest(name, (1, 2, 3), (1,), images=2))
        return [(image.size, image.tobytes()) for image in prompt["multi_modal_data"]["image"]]

    assert pixels("image") == pixels("floor2:image")
    assert len({*pixels("image"), *pixels("images")}) == 4


def test_a_model_without_images_is_refused(limits):
    """It reads something else than text, as sound."""
    del limits["image"]
    with pytest.raises(ValueError, match="reads no images"):
        ImagePrompts(LLM)
