"""The hooks on the model that a worker has loaded: declared keys, reads, layers and logits."""

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
from vllm.sequence import IntermediateTensors

from ..failures import ModelError
from .extent import plain
from .perturb import weight_kinds
from .scalars import scalar_kinds
from .step import Row, RowSpan, sampled_rows
from .tensors import traced
from .tracer import Tracer
from .wrap import Call, HookError, names_of_vllm, wrap_calls

# Most models call their stack `layers`; those after GPT-2 `h`, others `blocks`.
_LAYER_NAME = re.compile(r"^(?P<prefix>(?:.*\.)?(?:layers|h|blocks))\.(?P<index>\d+)$")


def watch_model(tracer: Tracer, runner: Any, *, is_last: bool) -> None:
    """Record the keys that the model declares, and hook the object that loading has just made.

    `is_last` says that this is the last stage, which computes logits. Compiled code and the replay
    of a CUDA graph run no Python: the reads of a forward and the outputs of its layers are not seen
    there, and a hook inside would only break the graph.

    Raises:
        ModelError: if the model's class computes no logits.
    """
    model = runner.get_model()
    _wrap_logits(tracer, model, runner)
    if not tracer.tracing:
        return
    declared: dict[str, Any] = {}
    error = None
    try:
        empty = model.make_empty_intermediate_tensors(
            batch_size=1, dtype=runner.model_config.dtype, device=runner.device
        )
        declared = {
            key: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            if isinstance(value, torch.Tensor)
            else None
            for key, value in empty.items()
        }
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    else:
        tracer.preload(dict(dict.items(empty.tensors)))
    tracer.write("declared", keys=declared, error=error)
    tracer.write("weights", kinds=[*weight_kinds(model), *scalar_kinds(model)])
    tracer.write("attention", backends=_attention_backends(model))
    layers = decoder_layers(runner)
    tracer.write("layers", indices=list(layers))

    def remembered(call: Call, args: Any, kwargs: Any) -> Any:
        runner._pp_harness_output = output = call(*args, **kwargs)
        return output

    if is_last:
        wrap_calls(model, remembered)
    if not runner.model_config.enforce_eager:
        return

    def given(call: Call, args: Any, kwargs: Any) -> Any:
        tensors = kwargs.get("intermediate_tensors")
        if tensors is None and any(isinstance(each, IntermediateTensors) for each in args):
            raise HookError("the model is given intermediate_tensors by position, not by name")
        if tensors is not None and tracer.watching:
            if tracer.step is not None:
                tracer.boundary("copied", dict(dict.items(tensors.tensors)))
            content = tracer.watched(tensors.tensors)
            kwargs["intermediate_tensors"] = traced(tensors, tracer.note, content)
        return call(*args, **kwargs)

    wrap_calls(model, given)

    def returned(call: Call, args: Any, kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        if isinstance(output, IntermediateTensors):
            # What a stage only passes on is still watched; vLLM gets the tensor itself.
            output.tensors = {key: plain(value) for key, value in dict.items(output.tensors)}
            tracer.boundary("returned", dict(output.tensors))
        return output

    # Innermost first: what the decoder returns, before a wrapper's epilogue can touch it.
    for name, module in model.named_modules():
        if name.count(".") <= 1 and name.rpartition(".")[2] in ("", "model", "language_model"):
            wrap_calls(module, returned)

    for index, module in layers.items():
        module.register_forward_hook(
            lambda _module, _args, output, index=index: tracer.layer(index, output)
        )


def _attention_backends(model: Any) -> list[str]:
    """Return the attention backends of this rank's layers, of FlashAttention with its version."""
    with names_of_vllm():
        from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    names = set()
    for layer in model.modules():
        if isinstance(layer, AttentionLayerBase):
            name = layer.get_attn_backend().get_name()
            version = getattr(getattr(layer, "impl", None), "vllm_flash_attn_version", None)
            names.add(f"{name} {version}" if version else name)
    return sorted(names)


def decoder_layers(runner: Any) -> dict[int, Any]:
    """Return this rank's decoder layers by their absolute index, vision towers left out."""
    with names_of_vllm():
        from vllm.model_executor.models.utils import PPMissingLayer

    total = runner.model_config.get_total_num_hidden_layers()
    stacks: dict[str, dict[int, Any]] = {}
    for name, module in runner.get_model().named_modules():
        if match := _LAYER_NAME.match(name):
            stacks.setdefault(match["prefix"], {})[int(match["index"])] = module
    for stack in stacks.values():
        if len(stack) == total:
            return {i: m for i, m in stack.items() if not isinstance(m, PPMissingLayer)}
    return {}


def _wrap_logits(tracer: Tracer, model: Any, runner: Any) -> None:
    """Take the raw logits of probe rows and hand the sampler one-hot rows for the forced ids.

    Of this model alone: one that drafts tokens may be of the same class.
    """
    original = getattr(model, "compute_logits", None)
    if original is None:
        raise ModelError(type(model), "compute_logits (pooling model?)")

    @functools.wraps(original)
    def compute_logits(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        logits = original(hidden, *args, **kwargs)
        spans: tuple[RowSpan, ...] = getattr(runner, "_pp_harness_spans", ())
        if not spans:
            return logits
        runner._pp_harness_spans = ()  # a second call is for logprobs of prompts
        rows = sampled_rows(spans, len(hidden))
        if logits is not None:
            tracer.logits.add_sampled(rows, logits)
        # Whole prompts: only where a step schedules more rows than it samples.
        if tracer.tracing and sum(span.count for span in spans) > len(rows):
            output = runner._pp_harness_output
            tracer.logits.add_prompts(
                spans,
                rows,
                output[0] if isinstance(output, tuple) else output,
                lambda rows: _without_adapter(model, lambda: original(rows, *args, **kwargs)),
                runner.model_config.get_vocab_size(),
            )
        return None if logits is None else _forced(rows, logits)

    model.compute_logits = compute_logits


def _without_adapter(model: Any, compute: Callable[[], Any]) -> Any:
    """Compute logits past the layer that adds an adapter's part, which is laid out for other rows.

    That is the rows of the step that are sampled from; our adapters have no part there.
    """
    processor = getattr(model, "logits_processor", None)
    base = getattr(processor, "base_layer", None)
    if base is None:
        return compute()
    model.logits_processor = base
    try:
        return compute()
    finally:
        model.logits_processor = processor


def _forced(rows: list[Row], logits: torch.Tensor) -> torch.Tensor:
    """Return logits from which the sampler takes the forced ids."""
    forced = torch.zeros_like(logits)
    for row, (span, position) in enumerate(rows):
        step = position + 1 - span.prompt_length
        if 0 <= step < len(span.forced):
            forced[row, span.forced[step]] = 1.0
        else:  # a chunk of a prompt: the engine throws this sample away
            forced[row] = logits[row]
    return forced
