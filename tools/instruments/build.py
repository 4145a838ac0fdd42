"""Build an instrument from nothing: problems, tokenizer, training, checks, checkpoint, card."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadInputError, HarnessError
from harness.files import whole_folder
from harness.models.instruments import CARD, VOCAB_SIZE

from .problems import Problem, make_problems, prompt_of, target_of
from .recipes import PROBLEM_SEED, RandomRecipe, Recipe
from .tokenizer import BOS, EOS, train_tokenizer, write_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from .training import Example

MINIMUM_ACCURACY = 0.95
MAXIMUM_ACCURACY_WITHOUT_PLE = 0.5
MAXIMUM_BYTES = 4_000_000
TOKENIZER_TEXTS = 2000
TOKENIZER_SEED = 1
OnProgress = Callable[[int, int, float], None]


def build_instrument(
    recipe: Recipe | RandomRecipe,
    out: Path,
    *,
    on_progress: OnProgress = lambda _step, _steps, _loss: None,
    check: bool = True,
) -> dict[str, object]:
    """Make the instrument of a recipe and write its checkpoint to the folder `out`.

    The folder appears whole or not at all, and replaces an older instrument of the same path.

    Args:
        recipe: `recipes.RECIPES` has those of the bundled instruments.
        out: the folder to make.
        on_progress: called after each optimiser step, with its number, that of all, and the loss
            in nats a token.
        check: False keeps a model that does not reach the stated accuracy (for tests).

    Returns:
        The card of the instrument.

    Raises:
        BadInputError: `out` exists and is no instrument; torch or transformers are not
            installed.
        HarnessError: the model misses the accuracy, does not see its weights, or is too large.
    """
    if out.exists() and not (out / CARD).is_file():
        raise BadInputError(f"{out} exists and holds no instrument; choose another --out")
    with whole_folder(out) as folder:
        folder.mkdir()
        card = _build_into(folder, recipe, on_progress, check=check)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors keeps its files to their owner
    return card


def make_tokenizer() -> Tokenizer:
    """Make the tokenizer of all instruments: trained on many problems of the bundled templates."""
    problems = make_problems(TOKENIZER_TEXTS, TOKENIZER_SEED)
    texts = (prompt_of(problem.question) + target_of(problem.answer) for problem in problems)
    return train_tokenizer(texts, VOCAB_SIZE)


def _build_into(
    folder: Path,
    recipe: Recipe | RandomRecipe,
    on_progress: OnProgress,
    *,
    check: bool,
) -> dict[str, object]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BadInputError(
            f"building an instrument needs torch and transformers ({error}); "
            "install pp-harness[cpu]"
        ) from error
    # One thread: sums are added in one order, so the same seed gives the same weights.
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    if isinstance(recipe, Recipe):
        made = _train_into(folder, recipe, tokenizer, on_progress, check=check)
    else:
        from . import multimodal

        made = {
            "purpose": "Shows whether an engine computes one thing twice; it knows nothing.",
            "vision": dict(recipe.vision),
            "measured": multimodal.build(recipe, tokenizer, folder),
        }
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    if size >= MAXIMUM_BYTES:
        raise HarnessError(f"instrument {recipe.name}: {size} bytes of weights, over the limit")
    card = {
        "name": recipe.name,
        "summary": recipe.summary,
        "shape": dict(recipe.shape),
        "parameters": _count_parameters(weights),
        "weights_bytes": size,
        "weights_dtype": "bfloat16",
        "built_by": f"python -m tools.instruments {recipe.name} --seed {recipe.seed}",
        "seed": recipe.seed,
        **made,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")
    return card


def _count_parameters(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping


def _train_into(
    folder: Path,
    recipe: Recipe,
    tokenizer: Tokenizer,
    on_progress: OnProgress,
    *,
    check: bool,
) -> dict[str, object]:
    """Train a model, check its answers, and write all but the card; return the card's part."""
    import torch
    from safetensors.torch import save_file

    from . import training

    # Processor time: other work on the machine does not enter the card.
    started = time.process_time()
    examples = [
        _example(tokenizer, problem) for problem in make_problems(recipe.problems, PROBLEM_SEED)
    ]
    model = training.make_model(recipe, tokenizer.get_vocab_size())
    training.train(
        model,
        recipe,
        examples,
        lambda step, loss: on_progress(step, recipe.steps, loss),
    )
    training.round_weights(model)
    score = training.evaluate(model, examples)
    measured: dict[str, object] = {
        "accuracy": score.accuracy,
        "smallest_logit_margin": round(score.margin, 3),
    }
    without = None
    if recipe.shape["hidden_size_per_layer_input"]:
        with training.without_ple(model, len(model.model.layers) // 2):
            without = training.evaluate(model, examples).accuracy
        measured["accuracy_without_ple_in_later_half"] = without
    tensors = training.checkpoint_tensors(model)
    measured["accuracy_bfloat16"] = training.evaluate(model.to(torch.bfloat16), examples).accuracy
    measured["training_cpu_seconds"] = round(time.process_time() - started)
    if check:
        _check_scores(recipe.name, score.accuracy, without)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    write_tokenizer(tokenizer, folder, model.config.max_position_embeddings)
    return {
        "purpose": "Measures the engine, not ability: it has memorised the bundled problems.",
        "steps": recipe.steps,
        "batch": recipe.batch,
        "learning_rate": recipe.learning_rate,
        "problems": {"count": recipe.problems, "seed": PROBLEM_SEED},
        "measured": measured,
    }


def _check_scores(name: str, accuracy: float, without_ple: float | None) -> None:
    if accuracy < MINIMUM_ACCURACY:
        raise HarnessError(
            f"instrument {name}: accuracy {accuracy:.3f} after training, below "
            f"{MINIMUM_ACCURACY}; nothing was written, try another --seed"
        )
    if without_ple is not None and without_ple > MAXIMUM_ACCURACY_WITHOUT_PLE:
        raise HarnessError(
            f"instrument {name}: accuracy is {without_ple:.3f} without PLE in the later half, "
            f"above {MAXIMUM_ACCURACY_WITHOUT_PLE}; nothing was written, try another --seed"
        )


def _example(tokenizer: Tokenizer, problem: Problem) -> Example:
    from .training import Example

    prompt = tokenizer.encode(prompt_of(problem.question)).ids
    answer = tokenizer.encode(target_of(problem.answer), add_special_tokens=False).ids
    assert prompt[0] == tokenizer.token_to_id(BOS)
    return Example(tuple(prompt), (*answer, tokenizer.token_to_id(EOS)))
