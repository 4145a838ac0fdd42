"""Probe requests on a running engine, marked so that the hooks know them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any

from .probes import Probe, ProbeRequest


def run_probe(llm: Any, probe: Probe, file: IO[str], change: str | None = None) -> None:
    """Send a probe and note in `file` what each of its requests asked and found in the cache.

    A line holds the ids of the tokens and how many of the prompt came from the prefix cache.
    """
    cached = send(llm, probe.requests, change)
    for one in probe.requests:
        line = {"probe": probe.name, **asdict(one), "cached": cached[one.name]}
        file.write(json.dumps(line) + "\n")


def send(llm: Any, requests: Sequence[ProbeRequest], change: str | None = None) -> dict[str, int]:
    """Hand `requests` to the engine together and check that it took the forced ids.

    `change` names what every rank alters while these requests run (hooks/changes.py). Returns the
    tokens of each prompt that came from the prefix cache, by the request's name.

    Raises:
        RuntimeError: if the engine took other ids: then later rows have other inputs.
    """
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": list(one.prompt)} for one in requests]
    params = [
        SamplingParams(
            temperature=0.0,
            max_tokens=len(one.forced),
            ignore_eos=True,
            detokenize=False,
            extra_args={
                "pp_harness": {
                    "request": one.name,
                    "forced": list(one.forced),
                    **({"change": change} if change else {}),
                }
            },
        )
        for one in requests
    ]
    cached = {}
    outputs = llm.generate(prompts, params, use_tqdm=False)
    for one, output in zip(requests, outputs, strict=True):
        taken = tuple(output.outputs[0].token_ids)
        if taken != one.forced:
            raise RuntimeError(
                f"probe {one.name}: the engine took {taken} and was to take {one.forced}"
            )
        cached[one.name] = int(output.num_cached_tokens or 0)
    return cached
