"""Run a tiny random model at PP=1 and PP=2 and compare log probabilities; needs vLLM alone.

    python show.py NAME... [--as-released]

Equal bits are expected: float32 on a CPU, the same batch at both sizes. Exit status 0 if they are
equal, 1 if they differ or PP=2 does not run, 2 if PP=1 does not.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

SMALL = {
    "vocab_size": 128,
    "hidden_size": 128,  # heads of 32: a size that every attention backend has
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # large enough for logits that tell layers apart
}
LIMIT = 300  # seconds for an engine
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
# The model type, what its config has beside SMALL, and arguments of the engine.
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gemma4-ple": (
        "gemma4_text",
        {
            "head_dim": 32,
            "global_head_dim": 64,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 128,
            "num_kv_shared_layers": 0,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        {},
    ),
    "ernie-tied": (
        "ernie4_5_moe",
        {
            "tie_word_embeddings": True,
            "moe_intermediate_size": 64,
            "moe_num_experts": 8,
            "moe_num_shared_experts": 1,
            "moe_k": 2,
        },
        {},
    ),
    "granite-hybrid": (
        "granitemoehybrid",
        {
            "layer_types": ["attention"] * 4,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "shared_intermediate_size": 64,
            "position_embedding_type": "rope",
            "mamba_expand": 1,
            "mamba_n_heads": 4,
            "mamba_d_head": 32,
            "mamba_d_state": 16,
            "mamba_chunk_size": 32,
        },
        {},
    ),
    "granite": ("granite", {"embedding_multiplier": 12.0}, {}),
    "granite-vision": (
        "granite4_vision",
        {
            "image_token_index": SMALL["vocab_size"] - 1,
            "image_grid_pinpoints": [[32, 32]],
            "downsample_rate": "4/8",
            "vision_feature_select_strategy": "full",
            # Features for layers of both stages at PP=2.
            "deepstack_layer_map": [[-2, 0], [-1, 3]],
            "use_spatial_sampling": False,
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 1,
                "image_size": 32,
                "patch_size": 4,
            },
        },
        {},
    ),
    "granite-transformers": (
        "granite",
        {"embedding_multiplier": 12.0},
        {"model_impl": "transformers"},
    ),
}


def main() -> int:
    """Run each model at both sizes and print how they differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=MODELS, metavar="NAME")
    parser.add_argument(
        "--as-released",
        action="store_true",
        help="do not make the receive buffer that a CPU lacks from 0.27.1 on (cpu-buffer.md)",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that engines end with this
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for module in ("vllm.entrypoints.llm", "vllm.v1.worker.gpu_model_runner"):
        importlib.import_module(module)  # once, for all that are forked from here
    return max(show(name, as_released=options.as_released) for name in options.names)


def show(name: str, *, as_released: bool) -> int:
    """Run a model at both sizes, print how they differ and return the exit status."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        apart(save, name, folder)
        for pp in (1, 2):
            log = apart(run, name, folder, pp, as_released)
            results = [line for line in log if line.startswith("RESULT ")]
            if not results:
                print(f"{name}: PP={pp} fails: {first_exception(log)}", flush=True)
                return 1 if pp == 2 else 2
            found.append(json.loads(results[0].removeprefix("RESULT ")))
    pairs = list(zip(*found, strict=True))
    differing = sum(one != two for one, two in pairs)
    largest = max(abs(one - two) for one, two in pairs)
    print(
        f"{name}: {differing} of {len(pairs)} log probabilities differ at PP=2, "
        f"by {largest:.3g} at most",
        flush=True,
    )
    return int(differing > 0)


def apart(function: Callable[..., None], *arguments: object) -> list[str]:
    """Run a function in a process forked from this one, and return what it printed."""
    with tempfile.TemporaryFile("w+") as log:
        child = os.fork()
        if not child:
            os.setsid()
            signal.alarm(LIMIT)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                function(*arguments)
            except BaseException:  # whatever it is, it ends this process alone
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(0)
        try:
            os.waitpid(child, 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # workers that outlive a failed engine
        log.seek(0)
        return log.read().splitlines()


def save(name: str, folder: str) -> None:
    """Write a checkpoint of random weights."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    kind, own, _ = MODELS[name]
    words = {str(token): token for token in range(SMALL["vocab_size"])}
    torch.manual_seed(0)
    if "vision_config" in own:
        tokens = words | {"<image>": own["image_token_index"]}
        tokens.pop(str(own["image_token_index"]))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(tokens, "0"))
        )
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        save_with_tower(kind, own, tokenizer, folder)
        return
    config = AutoConfig.for_model(kind, **{**SMALL, **own})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "0")))
    tokenizer.save_pretrained(folder)


def save_with_tower(kind: str, own: dict[str, Any], tokenizer: Any, folder: str) -> None:
    """Write a checkpoint whose decoder is behind a vision tower, and its processor."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import (
        AutoConfig,
        AutoModelForImageTextToText,
        Granite4VisionProcessor,
        LlavaNextImageProcessor,
    )

    text = {"model_type": "granite", "architectures": ["GraniteForCausalLM"], **SMALL}
    config = AutoConfig.for_model(kind, text_config=text, **own)
    AutoModelForImageTextToText.from_config(config, dtype=torch.float32).save_pretrained(folder)
    path = f"{folder}/model.safetensors"
    tower = ("vision_tower.", "vision_tower.vision_model.")  # as vLLM has the names
    save_file({name.replace(*tower): weight for name, weight in load_file(path).items()}, path)
    vision = own["vision_config"]
    tile = {"height": vision["image_size"], "width": vision["image_size"]}
    Granite4VisionProcessor(
        LlavaNextImageProcessor(
            size=tile, crop_size=tile, image_grid_pinpoints=own["image_grid_pinpoints"]
        ),
        tokenizer,
        patch_size=vision["patch_size"],
        downsample_rate=own["downsample_rate"],
        vision_feature_select_strategy=own["vision_feature_select_strategy"],
    ).save_pretrained(folder)


def first_exception(log: list[str]) -> str:
    """Return the line of a log that names the exception that was raised first."""
    lines = [line.rpartition("] ")[2].strip() for line in log]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
    return named[0] if named else "\n".join(log[-5:])


def run(name: str, folder: str, pp: int, as_released: bool) -> None:
    """Print the log probabilities of a prompt's tokens and of eight greedy ones."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        folder,
        pipeline_parallel_size=pp,
        dtype="float32",
        enforce_eager=True,
        max_model_len=SMALL["max_position_embeddings"],
        **MODELS[name][2],
    )
    if pp > 1 and not as_released:
        engine.collective_rpc(make_buffer)
    greedy = SamplingParams(
        temperature=0,
        max_tokens=8,
        prompt_logprobs=0,
        logprobs=0,
        detokenize=False,
        ignore_eos=True,
    )
    prompt: dict[str, Any] = {"prompt_token_ids": list(range(3, 35))}
    if image := MODELS[name][1].get("image_token_index"):
        from PIL import Image

        prompt["prompt_token_ids"].insert(16, image)
        pixels = bytes(number % 251 for number in range(3 * 32 * 32))
        prompt["multi_modal_data"] = {"image": Image.frombytes("RGB", (32, 32), pixels)}
    (answer,) = engine.generate([prompt], greedy, use_tqdm=False)
    steps = [*answer.prompt_logprobs[1:], *answer.outputs[0].logprobs]
    print("RESULT", json.dumps([next(iter(step.values())).logprob for step in steps]), flush=True)


def make_buffer(worker: Any) -> None:
    """Make the receive buffer of a rank that has none."""
    runner = worker.model_runner
    if runner.intermediate_tensors is None:
        runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )


if __name__ == "__main__":
    raise SystemExit(main())
