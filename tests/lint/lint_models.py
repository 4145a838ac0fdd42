"""A small model file of our own, correct as it stands; tests break one thing at a time."""

from __future__ import annotations

from pathlib import Path

from harness.lint import LintReport, lint_paths

CASES = Path(__file__).parent / "cases"

SOUND = """\
from itertools import islice

import torch
from torch import nn

from vllm.distributed import get_pp_group
from vllm.sequence import IntermediateTensors

from .interfaces import SupportsPP
from .utils import (
    PPMissingLayer,
    is_pp_missing_parameter,
    make_empty_intermediate_tensors_factory,
    make_layers,
)


class ToyLayer(nn.Module):
    def forward(self, positions, hidden_states, residual):
        return self.mix(hidden_states), self.skip(residual)


class ToyModel(nn.Module):
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.config = config
        self.wide = getattr(config, "wide", 0)
        if get_pp_group().is_first_rank or (
            config.tie_word_embeddings and get_pp_group().is_last_rank
        ):
            self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        else:
            self.embed_tokens = PPMissingLayer()
        self.start_layer, self.end_layer, self.layers = make_layers(
            config.num_hidden_layers,
            lambda prefix: ToyLayer(config, prefix=prefix),
            prefix=f"{prefix}.layers",
        )
        if get_pp_group().is_last_rank:
            self.norm = Norm(config.hidden_size)
        else:
            self.norm = PPMissingLayer()
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states", "residual"], config.hidden_size
        )

    def forward(self, input_ids, positions, intermediate_tensors, inputs_embeds=None, extra=None):
        if get_pp_group().is_first_rank:
            if inputs_embeds is not None:
                hidden_states = inputs_embeds
            else:
                hidden_states = self.embed_tokens(input_ids)
            residual = None
        else:
            assert intermediate_tensors is not None
            hidden_states = intermediate_tensors["hidden_states"]
            residual = intermediate_tensors["residual"]
        # before the layers
        for layer in islice(self.layers, self.start_layer, self.end_layer):
            hidden_states, residual = layer(positions, hidden_states, residual)
        # after the layers
        if not get_pp_group().is_last_rank:
            return IntermediateTensors(
                {"hidden_states": hidden_states, "residual": residual}
            )
        hidden_states, _ = self.norm(hidden_states, residual)
        return hidden_states

    def load_weights(self, weights):
        params_dict = dict(self.named_parameters())
        for name, loaded_weight in weights:
            if is_pp_missing_parameter(name, self):
                continue
            param = params_dict[name]
            param.weight_loader(param, loaded_weight)


class ToyForCausalLM(nn.Module, SupportsPP):
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.model = ToyModel(vllm_config=vllm_config, prefix=prefix)
        if get_pp_group().is_last_rank:
            self.lm_head = Head(config.vocab_size, config.hidden_size)
            if config.tie_word_embeddings:
                self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        else:
            self.lm_head = PPMissingLayer()
        self.make_empty_intermediate_tensors = (
            self.model.make_empty_intermediate_tensors
        )

    def forward(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None):
        hidden_states = self.model(
            input_ids, positions, intermediate_tensors, inputs_embeds
        )
        return hidden_states
"""


def changed(*edits: tuple[str, str]) -> str:
    """The sound model with pieces of text replaced; each must be there."""
    source = SOUND
    for old, new in edits:
        assert old in source, old
        source = source.replace(old, new)
    return source


def lint_source(folder: Path, source: str) -> LintReport:
    """Lint one model file."""
    path = folder / "toy.py"
    path.write_text(source, encoding="utf-8")
    return lint_paths([path])


def codes(report: LintReport) -> list[str]:
    """The codes of the findings, in order of appearance."""
    return [finding.code for finding in report.findings]


def case_files() -> list[Path]:
    """The committed model files, half of them wrong."""
    return sorted(CASES.glob("*.py"))


def expected_codes(case: Path) -> set[str]:
    """The codes of errors and warnings that the first line of a case names; none if it is right."""
    verdict, _, names = case.read_text(encoding="utf-8").splitlines()[0].partition(":")
    assert verdict in ("# right", "# wrong")
    return set(names.split())
