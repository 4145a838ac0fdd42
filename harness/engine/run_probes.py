"""Probe requests on a running engine: the probe set, known perturbations, changes of the self-test.

Each request carries a mark by which the hooks know it: its name, the token ids that it is forced to
take, and the change under which it runs, if there is one (hooks/changes.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from .asked import has_adapter, prompt_digests, random_adapter, sampling
from .images import ImagePrompts
from .json_lines import first_events, read_lines
from .manifest import Request
from .names import REQUEST_MARK, SENSITIVITY, UNPERTURBED, key_names, weight_name
from .probes import (
    Probe,
    ProbeRequest,
    aborted_requests,
    floor_passes,
    probe_set,
    sensitivity_request,
)
from .questions import run_gsm8k


def run_probe_set(llm: Any, request: Request, folder: Path) -> None:
    """Run the probes of a cell and write `probes.jsonl`, a line for each request.

    PP=1 runs them again in floor passes: what differs there, rounding alone has moved.
    """
    probes = _probes(llm, request)
    floor = floor_passes(request.profile, probes) if request.pp == 1 else ()
    options: dict[str, Any] = {"asked": sampling(request.probe_sampling), **_seeing(llm, request)}
    if request.asks("enable_lora"):
        options["adapter"] = random_adapter(Path(request.model_path), folder / "adapter")
    with (folder / "probes.jsonl").open("w", encoding="utf-8") as file:
        for probes_of_pass in (probes, *floor):
            _forget(llm, request)
            for probe in probes_of_pass:
                if request.asks("kv_offloading_size"):  # then what comes back comes from the host
                    llm.reset_prefix_cache()
                if request.aborts:
                    _abort_in_flight(llm, request, probe.name)
                run_probe(llm, probe, file, **options)
    llm.collective_rpc("pp_harness_flush")


def _probes(llm: Any, request: Request) -> tuple[Probe, ...]:
    return probe_set(request, llm.llm_engine.vllm_config.cache_config.block_size)


def _seeing(llm: Any, request: Request) -> dict[str, Any]:
    """Return what `_send` needs for images, if some are asked for."""
    return {"images": ImagePrompts(llm)} if request.images else {}


def _forget(llm: Any, request: Request) -> None:
    """Empty what the engine keeps of prompts: their blocks, and the features of their images."""
    llm.reset_prefix_cache()
    if request.images:
        llm.llm_engine.reset_encoder_cache()


def run_probe(llm: Any, probe: Probe, file: IO[str], change: str = "", **options: Any) -> None:
    """Send a probe (`options` as `_send` has them) and write a line for each request to `file`.

    A line holds the ids of the tokens, how many of the prompt came from the prefix cache, and
    digests of the log-probabilities of the prompt.
    """
    for request, output in zip(
        probe.requests, _send(llm, probe.requests, change, **options), strict=True
    ):
        line = {
            "probe": probe.name,
            **asdict(request),
            "prompt": list(output.prompt_token_ids),  # images are expanded
            "cached": int(output.num_cached_tokens or 0),
            "prompt_logprobs": prompt_digests(output),
        }
        file.write(json.dumps(line) + "\n")


def run_sensitivity(llm: Any, request: Request, folder: Path) -> None:
    """Run a short probe unperturbed, then once under each known perturbation.

    At PP=1 one weight of each kind is perturbed, at PP=N each key at each boundary; each costs one
    short prefill and one decode step. The hooks write how far the logits moved.
    """
    probe, options = sensitivity_request(request), _seeing(llm, request)
    if request.pp == 1:
        events = first_events(read_lines(folder / "rank0.jsonl"))
        names = [weight_name(kind) for kind in events["weights"]["kinds"]]
    else:
        later = [
            first_events(read_lines(folder / f"rank{stage * request.tp}.jsonl"))
            for stage in range(1, request.pp)
        ]
        names = key_names(events["declared"]["keys"] or () for events in later)
    for name in (UNPERTURBED, *names):
        if request.images:  # what was computed without the perturbation
            _forget(llm, request)
        _send(llm, (probe,), SENSITIVITY + name, **options)


def run_under_changes(llm: Any, lm: Any, request: Request, folder: Path) -> None:
    """Run the probe set, and the questions if asked to, under each change of the request in turn.

    What the hooks record carries the change's name; requests are written to
    `probes.<change>.jsonl`, answers to `gsm8k.<change>.jsonl`.
    """
    probes, options = _probes(llm, request), _seeing(llm, request)
    for change in request.changes:
        _forget(llm, request)  # what was computed without the change
        with (folder / f"probes.{change}.jsonl").open("w", encoding="utf-8") as file:
            for probe in probes:
                run_probe(llm, probe, file, change, **options)
        if lm is not None and request.gsm8k is not None and request.ask_under_changes:
            run_gsm8k(llm, lm, request, folder / f"gsm8k.{change}.jsonl", change=change)
    llm.collective_rpc("pp_harness_flush")


def _abort_in_flight(llm: Any, request: Request, before: str) -> None:
    """Cancel requests in flight, so that the probe `before` which they come gets their cache.

    They come in parts: one is decoding while the next is in prefill, and at PP=N a batch is on its
    way through the stages when all are cancelled. They have no mark, and no step mixes them with
    requests that have.
    """
    from vllm import SamplingParams

    engine, names = llm.llm_engine, []
    for part in aborted_requests(request):
        for each in part.requests:
            names.append(f"{each.name} before {before}")
            params = SamplingParams(max_tokens=len(each.forced), ignore_eos=True, detokenize=False)
            engine.add_request(names[-1], {"prompt_token_ids": list(each.prompt)}, params)
        engine.step()
    engine.step()
    engine.abort_request(names)


def _send(
    llm: Any,
    requests: Sequence[ProbeRequest],
    change: str,
    *,
    asked: Mapping[str, Any] = MappingProxyType({}),
    adapter: Any = None,
    images: ImagePrompts | None = None,
) -> list[Any]:
    """Hand `requests` to the engine together and check that it took the forced ids.

    Each has the sampling parameters `asked`, about every second one the `adapter`; `images` makes
    prompts where the model is asked to see. Returns vLLM's outputs in order.

    Raises:
        RuntimeError: if the engine took other ids: then later rows have other inputs.
    """
    from vllm import SamplingParams

    prompts = [
        images.prompt(request) if images else {"prompt_token_ids": list(request.prompt)}
        for request in requests
    ]
    params = [
        SamplingParams(
            temperature=0.0,
            max_tokens=len(request.forced),
            ignore_eos=True,
            detokenize=False,
            extra_args={
                REQUEST_MARK: {
                    "request": request.name,
                    "forced": list(request.forced),
                    "change": change,
                }
            },
            **asked,
        )
        for request in requests
    ]
    adapters = [adapter if has_adapter(request.name) else None for request in requests]
    outputs: list[Any] = llm.generate(prompts, params, use_tqdm=False, lora_request=adapters)
    for request, output in zip(requests, outputs, strict=True):
        taken = tuple(output.outputs[0].token_ids)
        if taken != request.forced:
            raise RuntimeError(
                f"probe {request.name}: the engine took {taken} and was to take {request.forced}"
            )
    return outputs
