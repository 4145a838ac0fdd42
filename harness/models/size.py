"""The size of a model: of its weights once loaded, and of its KV cache."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from .config import Config, Decoder, text_config

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_STORED_BYTES = {"float32": 4, "float": 4, "float64": 8}


def weight_bytes(path: Path, config: Config, itemsize: int) -> int:
    """Compute the bytes of a model's weights once loaded at `itemsize` bytes an element.

    A shape has a config and no files: the matrices of its decoder are counted. Norms and
    scalars, under a thousandth together, are not.
    """
    for suffix in (".safetensors", *PICKLE_SUFFIXES):
        if stored := sum(file.stat().st_size for file in path.glob(f"*{suffix}")):
            text = text_config(config)
            name = str(text.get("dtype") or text.get("torch_dtype") or "")
            return stored * itemsize // _STORED_BYTES.get(name, 2)
    decoder, text = Decoder.of(config), text_config(config)
    layers = sum(
        _attention(decoder, text, kind) + _feed_forward(decoder, text, layer)
        for layer, kind in enumerate(decoder.kinds)
    )
    maps = 2 * decoder.hidden_size * decoder.layers * decoder.hidden_size_per_layer_input
    return embedding_bytes(config, itemsize) + (layers + maps) * itemsize


def embedding_bytes(config: Config, itemsize: int) -> int:
    """Compute the bytes of the token embeddings, those per layer included."""
    decoder = Decoder.of(config)
    ple = decoder.layers * decoder.hidden_size_per_layer_input * decoder.vocab_size_per_layer_input
    return (decoder.vocab_size * decoder.hidden_size + ple) * itemsize


def tokenizer_bytes(path: Path) -> int:
    """Estimate the bytes of a loaded tokenizer: 18 times its file, measured with two (3, 32 MB)."""
    file = path / "tokenizer.json"
    return 18 * file.stat().st_size if file.is_file() else 0


def step_bytes(config: Config, tokens: int, itemsize: int) -> int:
    """Compute the bytes that a layer computes of `tokens` tokens, roughly.

    Gate, up and their product; hidden states, with what attention and residual add to them.
    """
    decoder = Decoder.of(config)
    return (3 * decoder.intermediate_size + 8 * decoder.hidden_size) * tokens * itemsize


def kv_groups(config: Config) -> int:
    """Count the groups of layers that share a block table, as vLLM forms them.

    All groups have as many layers as the rarest kind; a block holds the tokens of one group.
    """
    return sum(_groups(_own_kinds(Decoder.of(config))).values()) or 1


def kv_share(config: Config, layers_per_rank: Sequence[int]) -> float:
    """Compute which share of the KV cache of PP=1 the fullest stage holds.

    A block takes one layer of each group for each of its tensors, and a stage has as many tensors
    as it has layers of any one group. All stages have all blocks.
    """
    decoder = Decoder.of(config)
    counts = _own_kinds(decoder)
    groups = _groups(counts)
    stages = pairwise([0, *accumulate(layers_per_rank)])
    fullest = max(
        (
            -(-count // groups[kind])
            for begin, end in stages
            for kind, count in _own_kinds(decoder, begin, end).items()
        ),
        default=0,
    )
    return fullest / min(counts.values(), default=1)


def _own_kinds(decoder: Decoder, begin: int = 0, end: int | None = None) -> Counter[str]:
    """Count the layers of a stage that have a cache of their own, by kind."""
    return Counter(
        kind
        for layer, kind in list(enumerate(decoder.kinds))[begin:end]
        if layer not in decoder.kv_sources
    )


def _groups(counts: Counter[str]) -> dict[str, int]:
    """Count the groups of each kind."""
    return {kind: -(-count // min(counts.values())) for kind, count in counts.items()}


def kv_bytes(config: Config, tokens: int, itemsize: int) -> int:
    """Compute the bytes of a KV cache for `tokens` tokens, at most: each layer with its own."""
    decoder = Decoder.of(config)
    heads = decoder.num_attention_heads or 1
    kv_heads = max(decoder.num_key_value_heads or heads, decoder.num_global_key_value_heads)
    width = max(decoder.head_dim or decoder.hidden_size // heads, decoder.global_head_dim)
    return 2 * decoder.layers * kv_heads * width * itemsize * tokens


def _attention(decoder: Decoder, text: Config, kind: str) -> int:
    """Count query, key, value and output maps; KV-shared layers carry unused key and value maps."""
    heads = decoder.num_attention_heads
    if not heads:
        return 0  # a state-space model
    kv_heads = decoder.num_key_value_heads or heads
    head = decoder.head_dim or decoder.hidden_size // heads
    maps = 2 * (heads + kv_heads)
    if kind == "full_attention":
        head = decoder.global_head_dim or head
        if text.get("attention_k_eq_v"):
            # One map serves as key and value in the checkpoint.
            maps = 2 * heads + (decoder.num_global_key_value_heads or kv_heads)
    return decoder.hidden_size * head * maps


def _feed_forward(decoder: Decoder, text: Config, layer: int) -> int:
    """Count a gated MLP, and experts with their router beside it."""
    hidden, width = decoder.hidden_size, decoder.intermediate_size
    if layer in decoder.kv_sources and text.get("use_double_wide_mlp"):
        width *= 2
    dense = 3 * hidden * width
    if not decoder.num_experts:
        return dense
    experts = decoder.num_experts * hidden * (3 * (decoder.moe_intermediate_size or width) + 1)
    return dense + experts
