"""Seeded images in the prompts of probes, marked as the model's own processor wants it."""

import random
import zlib
from collections.abc import Iterator
from typing import Any

from .probes import ProbeRequest, split_pass

# Width and height in pixels: small, and uneven, since processors pad and cut.
_SIZES = ((48, 64), (96, 48), (64, 64))


def prompt_of(request: ProbeRequest, images: "ImagePrompts | None" = None) -> dict[str, Any]:
    """Return vLLM's prompt for a probe: its ids alone, or with its images as `images` puts them."""
    if images is not None and request.images:
        return images.prompt(request)
    return {"prompt_token_ids": list(request.prompt)}


class ImagePrompts:
    """Turns probes into prompts of an engine whose model reads images."""

    def __init__(self, llm: Any) -> None:
        """Ask the model's processor how a prompt marks an image.

        Raises:
            ValueError: the model reads no images, or its checkpoint has no processor.
        """
        from vllm.multimodal import MULTIMODAL_REGISTRY

        processor = MULTIMODAL_REGISTRY.create_processor(llm.llm_engine.vllm_config.model_config)
        if "image" not in processor.info.get_supported_mm_limits():
            raise ValueError("the model reads no images")
        # The text with which vLLM profiles the model.
        text = processor.dummy_inputs.get_dummy_text({"image": 1})
        tokenizer = processor.info.get_tokenizer()
        self._mark = tuple(tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, request: ProbeRequest) -> dict[str, Any]:
        """Return vLLM's prompt for a probe with images; they stand evenly spread in its ids."""
        return {
            "prompt_token_ids": list(self._ids(request)),
            "multi_modal_data": {"image": [_draw(request.name, i) for i in range(request.images)]},
        }

    def _ids(self, request: ProbeRequest) -> Iterator[int]:
        """Yield the ids of a prompt with the mark of each image; none elsewhere looks like it."""
        plain = next(word for word in range(len(self._mark) + 1) if word not in self._mark)
        step = len(request.prompt) // (request.images + 1)
        marked = [step * (image + 1) for image in range(request.images)]
        for index, word in enumerate(request.prompt):
            if index in marked:
                yield from self._mark
            yield plain if word in self._mark else word


def _draw(name: str, index: int) -> Any:
    """Draw an image of noise from the name of its request, the same in every pass."""
    from PIL import Image

    seed = zlib.crc32(f"{split_pass(name)[1]}/{index}".encode())
    width, height = _SIZES[seed % len(_SIZES)]
    pixels = random.Random(seed).randbytes(3 * width * height)  # noqa: S311 - reproducible, not secret
    return Image.frombytes("RGB", (width, height), pixels)
