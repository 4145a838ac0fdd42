"""How far each perturbation moves the log-probabilities that the engine samples from."""

import json
from pathlib import Path

import torch

from ..perturbations import UNPERTURBED
from .step import RowSpan

FILE = "sensitivity.jsonl"


class EffectWriter:
    """Keeps the unperturbed run and writes a line for each step of the others.

    Log-probabilities, not logits: dummy weights of a small model give logits of 1e-28, whose bits
    move, though in float32 they mean the same for every token.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._reference: dict[int, torch.Tensor] = {}

    def add(self, spans: tuple[RowSpan, ...], logits: torch.Tensor) -> None:
        """Compare `logits` [1, vocabulary] with the unperturbed ones of the same step."""
        (span,) = spans
        name = span.change.partition(":")[2]
        now = torch.log_softmax(logits.detach().float(), dim=-1)
        if name == UNPERTURBED:
            self._reference[span.start] = now
            return
        effect = float((now - self._reference[span.start]).square().mean().sqrt())
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"change": name, "effect": effect}) + "\n")
