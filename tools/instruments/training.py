"""Train an instrument with torch and transformers. Only the builder imports this module."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from harness.models.shrink import add_shared_weights

from .recipes import Recipe

IGNORED = -100
MAX_GRADIENT_NORM = 1.0
WARM_UP_STEPS = 40
FINAL_RATE = 0.05
# A broken pass counts as wrong enough above this loss, in nats a token of the answer.
WRONG_ENOUGH = 3.0


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt (bos first) and of its answer (eos last)."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """The score of a model on a set of examples.

    Attributes:
        accuracy: share of examples whose whole answer greedy decoding gives, token for token.
        margin: smallest logit distance of an answer token to its best rival (negative: a miss).
    """

    accuracy: float
    margin: float


def make_config(recipe: Recipe, vocab_size: int) -> Gemma4TextConfig:
    """Return the recipe's transformers configuration, for `vocab_size` tokens."""
    return Gemma4TextConfig(
        vocab_size=vocab_size,
        vocab_size_per_layer_input=vocab_size,
        architectures=["Gemma4ForCausalLM"],
        dtype="bfloat16",
        **recipe.shape,
    )


def make_model(recipe: Recipe, vocab_size: int) -> Gemma4ForCausalLM:
    """Make a float32 model, weights seeded by the recipe; layer scalars differ between layers."""
    torch.manual_seed(recipe.seed)
    model = Gemma4ForCausalLM(make_config(recipe, vocab_size)).to(torch.float32)
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):
            # Not 1.0, the value that a loader which forgets them would leave.
            layer.layer_scalar.fill_(0.88 + 0.04 * (index % 4))
            for norm in (layer.self_attn.q_norm, getattr(layer.self_attn, "k_norm", None)):
                if norm is not None:
                    # Gemma4 does not scale attention scores; this starts them at unit spread.
                    norm.weight.fill_(norm.weight.numel() ** -0.25)
            if layer.hidden_size_per_layer_input:
                layer.post_per_layer_input_norm.weight.fill_(recipe.ple_gain)
    return model


def train(
    model: Gemma4ForCausalLM,
    recipe: Recipe,
    examples: Sequence[Example],
    on_step: Callable[[int, float], None],
) -> None:
    """Fit `model` in place on the answers of `examples`; `on_step` gets step and loss.

    A model with PLE is also trained to be wrong when PLE is broken in its later half: by itself
    it memorises the answers in ways that hardly need PLE, and would not notice its loss.
    """
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _rate(recipe.steps))
    has_ple = bool(recipe.shape["hidden_size_per_layer_input"])
    model.train()
    batches = _batches(len(examples), recipe.batch, recipe.seed)
    for step in range(1, recipe.steps + 1):
        inputs, labels = _pad([examples[i] for i in next(batches)])
        logits = model(input_ids=inputs, use_cache=False).logits
        fit = _losses(logits, labels).mean()
        loss = fit
        if has_ple:
            loss = fit + _ple_contrast(model, inputs, labels, stale=step % 2 == 0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        schedule.step()
        on_step(step, float(fit.detach()))
    model.eval()


def evaluate(model: Gemma4ForCausalLM, examples: Sequence[Example], batch: int = 32) -> Score:
    """Score greedy decoding without decoding.

    One pass over prompt and answer tells whether each answer token is the most likely after
    the right tokens before it; if all are, greedy decoding gives exactly this answer.
    """
    model.eval()
    solved, margin = 0, float("inf")
    for start in range(0, len(examples), batch):
        inputs, labels = _pad(examples[start : start + batch])
        with torch.no_grad():
            logits = model(input_ids=inputs, use_cache=False).logits[:, :-1].float()
        wanted = labels[:, 1:]
        asked = wanted != IGNORED
        index = wanted.clamp(min=0).unsqueeze(-1)
        right = logits.gather(-1, index).squeeze(-1)
        rival = logits.scatter(-1, index, float("-inf")).amax(-1)
        distance = torch.where(asked, right - rival, torch.inf)
        solved += int((distance.amin(-1) > 0).sum())
        margin = min(margin, float(distance.min()))
    return Score(solved / len(examples), margin)


@contextmanager
def without_ple(model: Gemma4ForCausalLM, first_layer: int) -> Iterator[None]:
    """Inside the block, layers from `first_layer` on skip what PLE adds."""
    layers = list(model.model.layers)[first_layer:]
    widths = [layer.hidden_size_per_layer_input for layer in layers]
    try:
        for layer in layers:
            layer.hidden_size_per_layer_input = 0
        yield
    finally:
        for layer, width in zip(layers, widths, strict=True):
            layer.hidden_size_per_layer_input = width


def checkpoint_tensors(model: Gemma4ForCausalLM) -> dict[str, torch.Tensor]:
    """Return the tensors of a bfloat16 checkpoint that transformers and vLLM both load."""
    tensors = {
        name: tensor.detach().to(torch.bfloat16).contiguous().clone()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    add_shared_weights(tensors, model.config.to_dict())
    return tensors


def round_weights(model: Gemma4ForCausalLM) -> None:
    """Round weights and buffers in place to bfloat16 values, as the checkpoint stores them."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(tensor.to(torch.bfloat16).to(tensor.dtype))


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the mean loss of each example's answer tokens, (batch,), in nats a token."""
    wanted = labels[:, 1:]
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none"
    )
    return each.sum(-1) / (wanted != IGNORED).sum(-1)


def _ple_contrast(
    model: Gemma4ForCausalLM, inputs: torch.Tensor, labels: torch.Tensor, *, stale: bool
) -> torch.Tensor:
    """Measure how far a pass with PLE broken in the later half is from wrong enough; 0: it is.

    Broken: PLE left out, or (`stale`) the token part of it taken from the token before. Half
    the batch is enough to learn this from.
    """
    half = len(inputs) // 2
    inputs, labels = inputs[:half], labels[:half]
    middle = len(model.model.layers) // 2
    if stale:
        ple = model.model.get_per_layer_inputs(inputs, None)
        late = ple[:, :, middle:].roll(1, dims=1)
        ple = torch.cat([ple[:, :, :middle], late], dim=2)
        logits = model(input_ids=inputs, per_layer_inputs=ple, use_cache=False).logits
    else:
        with without_ple(model, middle):
            logits = model(input_ids=inputs, use_cache=False).logits
    return torch.relu(WRONG_ENOUGH - _losses(logits, labels)).mean()


def _rate(steps: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < WARM_UP_STEPS:
            return (step + 1) / WARM_UP_STEPS
        left = 1.0 - (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)
        # Linear down: a flat tail at a low rate widens the margins little and costs time.
        return FINAL_RATE + (1.0 - FINAL_RATE) * max(0.0, left)

    return factor


def _batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _pad(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Build token ids and labels, both (batch, longest), padded right with 0 and IGNORED."""
    width = max(len(example.prompt) + len(example.answer) for example in examples)
    inputs = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full((len(examples), width), IGNORED)
    for row, example in enumerate(examples):
        start, end = len(example.prompt), len(example.prompt) + len(example.answer)
        inputs[row, :end] = torch.tensor(example.prompt + example.answer)
        labels[row, start:end] = torch.tensor(example.answer)
    return inputs, labels
