"""What stands for an architecture in a census: a tiny config of its structure, or why none can."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..errors import BadInputError
from .class_defaults import ClassDefault
from .config import Config, Decoder, text_config, wraps_decoder
from .partition import default_split, illegal_reason
from .shrink_plan import corrections, shrunk_config, shrunk_wrapper
from .unplanned import encoder_of


class Reason(StrEnum):
    """Why an architecture has no verdict."""

    NO_PP = "does not claim PP"
    NO_CONFIG = "no config"
    ENCODER = "encoder or pooling"
    PROCESSOR = "needs its processor"
    NOT_SHRUNK = "cannot be shrunk"
    NOT_RUN = "not run yet"
    NO_KERNEL = "not on this device: kernel"
    FAILS_AT_1 = "fails at PP=1"


@dataclass(frozen=True)
class StandIn:
    """The tiny config of an architecture; or the reason why it has none, with one sentence more.

    `by` names the class that gave the config, `dtype` is what runs on a CPU. What reads more than
    text is given text prompts alone.
    """

    architecture: str
    by: str = ""
    config: dict[str, Any] | None = None
    reason: Reason | None = None
    detail: str = ""
    is_multimodal: bool = False
    dtype: str = "float32"


def stand_in(
    architecture: str, default: ClassDefault | None, *, is_multimodal: bool = False
) -> StandIn:
    """Shrink the default config of an architecture; None is one that does not claim PP."""
    if default is None:
        return StandIn(architecture, reason=Reason.NO_PP)
    if default.config is None:
        return StandIn(architecture, reason=Reason.NO_CONFIG, detail=default.reason)
    if encoder := encoder_of(default.config):
        return StandIn(architecture, default.by, reason=Reason.ENCODER, detail=encoder)
    shrunk = shrunk_wrapper if wraps_decoder(default.config) else shrunk_config
    try:
        config = shrunk(default.config)
        if not Decoder.of(config).vocab_size:
            raise BadInputError("the config names no vocab_size")
    except BadInputError as error:
        return StandIn(architecture, default.by, reason=Reason.NOT_SHRUNK, detail=str(error))
    dtype = _dtype(text_config(config))
    return StandIn(architecture, default.by, config, is_multimodal=is_multimodal, dtype=dtype)


def _dtype(text: Config) -> str:
    """The dtype for which a CPU has kernels: those of latent attention take no float32."""
    entry = corrections().get(text.get("model_type") or "", {})
    default = "bfloat16" if text.get("kv_lora_rank") else "float32"
    return str(entry.get("dtype", default))


def uneven_split(config: dict[str, Any], pp: int) -> tuple[int, ...] | None:
    """Split layers unevenly where vLLM's own split is even; None where it is not, or may not be.

    An even split hides a layer that is counted from the wrong end.
    """
    decoder = Decoder.of(config)
    first, *middle, last = default_split(decoder.layers, pp)
    split = (first + 1, *middle, last - 1)
    is_even = len({first, *middle, last}) == 1
    return split if is_even and illegal_reason(decoder, split, pp) is None else None
