"""Models that cannot be asked: refused before an engine, by what the release says."""

from collections.abc import Iterable

from ..errors import BadInputError
from ..models.checkpoint import ModelSource
from ..models.unplanned import encoder_of
from ..source.pin import InstalledVllm
from ..source.registry import REGISTRY, ModelClass, generating_models, kind_without_text
from ..source.series import Variant


def check_generates(model: ModelSource, vllm: InstalledVllm, variants: Iterable[Variant]) -> None:
    """Refuse a model from which the release generates no text.

    A variant that changes the registry is left to vLLM.

    Raises:
        BadInputError: it is an embedding, reward or classification model, or an encoder; the
            message says by what.
    """
    if not _speaks(vllm, variants):
        return
    root = vllm.package_dir.parent
    architectures = tuple(model.config.get("architectures") or ())
    names = ", ".join(architectures) or "a config without architectures"
    kind = kind_without_text(root, architectures)
    if kind is not None:
        reason = f"{names} is {kind} in vLLM {vllm.release}, which has no logits to compare"
    else:
        encoder = encoder_of(model.config)
        if encoder is None or _serving(architectures, vllm):
            return
        reason = f"vLLM {vllm.release} does not know {names}, and {encoder}"
    raise BadInputError(f"--pp-model {model.name}: {reason}; give a model that generates text")


def check_sees(model: ModelSource, vllm: InstalledVllm, variants: Iterable[Variant]) -> None:
    """Refuse images for a model that reads text alone by the release's registry.

    Raises `BadInputError`. A variant that changes the registry is left to vLLM.
    """
    if not _speaks(vllm, variants):
        return
    architectures = tuple(model.config.get("architectures") or ())
    if not all(each.is_multimodal for each in _serving(architectures, vllm)):
        raise BadInputError(
            f"--pp-recipe images: {model.name} ({', '.join(architectures)}) reads text alone in "
            f"vLLM {vllm.release}; give a model with a vision tower, as mm"
        )


def _speaks(vllm: InstalledVllm, variants: Iterable[Variant]) -> bool:
    """Whether the release's registry is there and holds for every variant."""
    changed = any(
        REGISTRY in variant.files
        or any(file.path == REGISTRY for patch in variant.patches for file in patch.files)
        for variant in variants
    )
    return not changed and (vllm.package_dir.parent / REGISTRY).is_file()


def _serving(architectures: tuple[str, ...], vllm: InstalledVllm) -> list[ModelClass]:
    """List the classes of the registry that generate text for any of these architectures."""
    models = generating_models(vllm.package_dir.parent)
    return [each for each in models if set(architectures) & set(each.architectures)]
