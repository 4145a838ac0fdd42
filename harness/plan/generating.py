"""Models that cannot be asked: refused before an engine, by what the release says."""

from collections.abc import Iterable

from ..errors import BadInputError
from ..models.checkpoint import ModelSource
from ..models.unplanned import encoder_of
from ..source.pin import InstalledVllm
from ..source.registry import REGISTRY, generating_models, kind_without_text
from ..source.series import Variant


def check_generates(model: ModelSource, vllm: InstalledVllm, variants: Iterable[Variant]) -> None:
    """Refuse a model from which the release generates no text.

    A variant that changes the registry is left to vLLM.

    Raises:
        BadInputError: it is an embedding, reward or classification model, or an encoder; the
            message says by what.
    """
    root = vllm.package_dir.parent
    if _changes_registry(variants) or not (root / REGISTRY).is_file():
        return
    architectures = tuple(model.config.get("architectures") or ())
    names = ", ".join(architectures) or "a config without architectures"
    kind = kind_without_text(root, architectures)
    if kind is not None:
        reason = f"{names} is {kind} in vLLM {vllm.release}, which has no logits to compare"
    else:
        encoder = encoder_of(model.config)
        if encoder is None or _is_listed(architectures, vllm):
            return
        reason = f"vLLM {vllm.release} does not know {names}, and {encoder}"
    raise BadInputError(f"--pp-model {model.name}: {reason}; give a model that generates text")


def check_sees(model: ModelSource, vllm: InstalledVllm, variants: Iterable[Variant]) -> None:
    """Refuse images for a model that reads text alone by the release's registry.

    Raises `BadInputError`. A variant that changes the registry is left to vLLM.
    """
    root = vllm.package_dir.parent
    if _changes_registry(variants) or not (root / REGISTRY).is_file():
        return
    architectures = set(model.config.get("architectures") or ())
    if any(
        architectures & set(each.architectures)
        for each in generating_models(root)
        if not each.is_multimodal
    ):
        raise BadInputError(
            f"--pp-recipe images: {model.name} ({', '.join(sorted(architectures))}) reads text "
            f"alone in vLLM {vllm.release}; give a model with a vision tower, as mm"
        )


def _changes_registry(variants: Iterable[Variant]) -> bool:
    return any(
        REGISTRY in variant.files
        or any(file.path == REGISTRY for patch in variant.patches for file in patch.files)
        for variant in variants
    )


def _is_listed(architectures: tuple[str, ...], vllm: InstalledVllm) -> bool:
    models = generating_models(vllm.package_dir.parent)
    return any(set(architectures) & set(each.architectures) for each in models)
