"""The command `pp-harness model`: instruments, shrunk models, layer splits."""

from pathlib import Path

import click

from ..errors import BadInputError
from ..models.config import Decoder
from ..models.instruments import instrument_names, instrument_path, read_card
from ..models.partition import PARTITION_VARIABLE, PartitionPlan, as_value, plan_partition
from ..models.shrink import find_config
from ..models.shrink import shrink as build_shrunk
from ..models.unplanned import unknown_split
from ..report.text import aligned
from .paths import NEW_FOLDER


@click.group()
def model() -> None:
    """Instruments, tiny models and layer splits."""


@model.command("list")
def list_models() -> None:
    """List the bundled instruments."""
    rows = [("instrument", "layers", "parameters", "accuracy when built", "what it is")]
    for name in instrument_names():
        card = read_card(instrument_path(name))
        layers, parameters = card["shape"]["num_hidden_layers"], f"{card['parameters']:,}"
        accuracy = card["measured"].get("accuracy")
        measured = "random weights" if accuracy is None else f"{accuracy:.3f}"
        rows.append((name, str(layers), parameters, measured, card["summary"]))
    click.echo("\n".join(aligned(rows)))
    click.echo(
        "An instrument measures the engine, not ability: it has memorised its problems, or knows "
        "nothing."
    )


@model.command("shrink")
@click.argument("source", metavar="CONFIG|HUB_ID|ARCHITECTURE")
@click.argument("out", type=NEW_FOLDER)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the weights.")
@click.option(
    "--text-only",
    is_flag=True,
    help="Of a model that wraps a decoder (images, audio), make the decoder alone.",
)
def shrink(source: str, out: Path, seed: int, text_only: bool) -> None:
    """Write a tiny random checkpoint of the structure of CONFIG into the folder OUT.

    CONFIG is a config.json, a folder that holds one, an instrument, a hub id (only its config is
    fetched), or an architecture of vLLM's registry (LlamaForCausalLM, FalconH1ForCausalLM, ...),
    which needs no file. The layer pattern, experts, per-layer inputs and KV sharing are kept, sizes
    are reduced. Needs torch and transformers.
    """
    folder = build_shrunk(find_config(source), out, seed=seed, text_only=text_only)
    card = read_card(folder)
    click.echo(
        f"{folder}: {card['summary']}; {Decoder.of(card['shape']).layers} layers, "
        f"{card['parameters']:,} parameters, seed {seed}"
    )


@model.command("partition")
@click.argument("config", type=str)
@click.option(
    "--pp",
    "sizes",
    default="2,4",
    show_default=True,
    help="Pipeline sizes, separated by commas.",
)
@click.option("--split", help="Judge this layer split (layers of each rank: 5,5) at one size.")
def partition(config: str, sizes: str, split: str | None) -> None:
    """Show vLLM's own layer split of CONFIG over pipeline ranks, and a legal one where it is not.

    CONFIG is a config.json, a folder that holds one, an instrument, a published shape
    (shape:E4B), or a hub id (only its config is fetched). Exit status 1: at some size no legal
    split exists, or the given one is illegal; 2: which splits are legal is not known.
    """
    content = find_config(config)
    unknown = unknown_split(content)
    if unknown is not None:
        raise BadInputError(f"{config}: no layer split is known to be legal: {unknown}")
    requested = None if split is None else _numbers(split, "--split")
    pps = _numbers(sizes, "--pp")
    if requested is not None and len(pps) > 1:
        raise BadInputError("--split judges one size; give one number with --pp")
    plans = [plan_partition(content, pp, requested) for pp in pps]
    click.echo(f"{Decoder.of(content).layers} layers")
    for plan in plans:
        click.echo(_as_text(plan))
    if any(plan.illegal_reason for plan in plans):
        raise SystemExit(1)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BadInputError(f"{option} wants numbers separated by commas, got {text!r}") from None


def _as_text(plan: PartitionPlan) -> str:
    lines = [f"\nPP={plan.pp}: vLLM's own layer split {as_value(plan.default_split)}"]
    if plan.illegal_reason:
        lines[0] += "" if plan.is_default else f", given {plan.value}"
        lines.append(f"  ILLEGAL: {plan.illegal_reason}")
    if plan.note:
        lines.append(f"  {plan.note}")
    if not plan.is_default and not plan.illegal_reason:
        lines.append(f"  {PARTITION_VARIABLE}={plan.value}")
    return "\n".join(lines)
