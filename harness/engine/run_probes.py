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
from .images import ImagePrompts, prompt_of
from .json_lines import first_events, read_lines
from .manifest import Request
from .names import ADAPTER, REQUEST_MARK, SENSITIVITY, UNPERTURBED, key_names, weight_name
from .probes import (
    Probe,
    ProbeRequest,
    aborted_requests,
    floor_passes,
    probe_set,
    sensitivity_request,
)
from .questions import run_gsm8k


class ProbeRun:
    """The probes of one engine, with what its recipe asks of them.

    Images and an adapter are made once; each file goes into the capture's folder.
    """

    def __init__(self, llm: Any, request: Request) -> None:
        self._llm, self._request = llm, request
        block_size = llm.llm_engine.vllm_config.cache_config.block_size
        self._probes = probe_set(request, block_size)
        self._asked = sampling(request.probe_sampling)
        self._images = ImagePrompts(llm) if request.images else None
        self._offloads = request.asks("kv_offloading_size")
        self._adapter = (
            random_adapter(Path(request.model_path), request.folder / "adapter")
            if request.asks("enable_lora")
            else None
        )

    def run(self) -> None:
        """Run the probe set and write `probes.jsonl`, a line for each request.

        PP=1 runs it again in floor passes: what differs there, rounding alone has moved.
        """
        request = self._request
        floor = floor_passes(request.profile, self._probes) if request.pp == 1 else ()
        with (request.folder / "probes.jsonl").open("w", encoding="utf-8") as file:
            for probes in (self._probes, *floor):
                self._forget()
                for probe in probes:
                    if self._offloads:  # then what comes back is the host's
                        self._llm.reset_prefix_cache()
                    if request.aborts:
                        self._abort_in_flight(probe.name)
                    self._run(probe, file)
        self._llm.collective_rpc("pp_harness_flush")

    def run_sensitivity(self) -> None:
        """Run a short probe unperturbed, then once under each known perturbation.

        At PP=1 one weight of each kind is perturbed and the adapter is, if there is one; at PP=N
        each key at each boundary. Each costs one short prefill and one decode step. The hooks write
        how far the logits moved.
        """
        request = self._request
        probe = sensitivity_request(request)
        if request.pp == 1:
            events = first_events(read_lines(request.folder / "rank0.jsonl"))
            names = [weight_name(kind) for kind in events["weights"]["kinds"]]
        else:
            later = [
                first_events(read_lines(request.folder / f"rank{stage * request.tp}.jsonl"))
                for stage in range(1, request.pp)
            ]
            names = key_names(events["declared"]["keys"] or () for events in later)
        for name in (UNPERTURBED, *names):
            if request.images:  # what was computed without the perturbation
                self._forget()
            _send(self._llm, (probe,), SENSITIVITY + name, images=self._images)
        if request.pp == 1 and self._adapter is not None:
            _send(self._llm, (probe,), SENSITIVITY + ADAPTER, adapters=(self._adapter,))

    def run_under_changes(self, lm: Any) -> None:
        """Run the probe set, and the questions if asked to, under each change of the cell in turn.

        What the hooks record carries the change's name; requests are written to
        `probes.<change>.jsonl`, answers to `gsm8k.<change>.jsonl`.
        """
        request, folder = self._request, self._request.folder
        for change in request.changes:
            self._forget()  # what was computed without the change
            with (folder / f"probes.{change}.jsonl").open("w", encoding="utf-8") as file:
                for probe in self._probes:
                    self._run(probe, file, change)
            if lm is not None and request.gsm8k is not None and request.ask_under_changes:
                run_gsm8k(self._llm, lm, request, folder / f"gsm8k.{change}.jsonl", change=change)
        self._llm.collective_rpc("pp_harness_flush")

    def _run(self, probe: Probe, file: IO[str], change: str = "") -> None:
        run_probe(
            self._llm,
            probe,
            file,
            change,
            asked=self._asked,
            images=self._images,
            adapters=[self._adapter if has_adapter(each.name) else None for each in probe.requests],
        )

    def _forget(self) -> None:
        """Empty what the engine keeps of prompts: their blocks, and features of their images."""
        self._llm.reset_prefix_cache(reset_connector=self._offloads)  # the host's blocks too
        if self._images is not None:
            self._llm.llm_engine.reset_encoder_cache()

    def _abort_in_flight(self, before: str) -> None:
        """Cancel requests in flight, so that the probe which they come `before` gets their cache.

        They come in parts: one is decoding while the next is in prefill, and at PP=N a batch is on
        its way through the stages when all are cancelled. They have no mark, and no step mixes them
        with requests that have.
        """
        from vllm import SamplingParams

        engine, names = self._llm.llm_engine, []
        for part in aborted_requests(self._request):
            for each in part.requests:
                names.append(f"{each.name} before {before}")
                params = SamplingParams(
                    max_tokens=len(each.forced), ignore_eos=True, detokenize=False
                )
                engine.add_request(names[-1], prompt_of(each), params)
            engine.step()
        engine.step()
        engine.abort_request(names)


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


def _send(
    llm: Any,
    requests: Sequence[ProbeRequest],
    change: str,
    *,
    asked: Mapping[str, Any] = MappingProxyType({}),
    adapters: Sequence[Any] | None = None,
    images: ImagePrompts | None = None,
) -> list[Any]:
    """Hand `requests` to the engine together and check that it took the forced ids.

    Each has the sampling parameters `asked` and one of `adapters`, None for none; `images` makes
    the prompts that have some. Returns vLLM's outputs in order.

    Raises:
        RuntimeError: if the engine took other ids: then later rows have other inputs.
    """
    from vllm import SamplingParams

    prompts = [prompt_of(request, images) for request in requests]
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
    outputs: list[Any] = llm.generate(prompts, params, use_tqdm=False, lora_request=adapters)
    for request, output in zip(requests, outputs, strict=True):
        taken = tuple(output.outputs[0].token_ids)
        if taken != request.forced:
            raise RuntimeError(
                f"probe {request.name}: the engine took {taken} and was to take {request.forced}"
            )
    return outputs
