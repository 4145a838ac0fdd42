"""How far each perturbation moves the logits that the engine samples from."""

import json
from pathlib import Path

import torch

from ..names import UNPERTURBED
from .step import Row

FILE = "sensitivity.jsonl"


class EffectWriter:
    """Keeps the unperturbed run and writes a line for each step of the others.

    An effect is measured as the logits check measures a row: root mean square of the change over
    that of the row, each less its mean. Of log-probabilities, which differ from logits by their
    mean alone: dummy weights of a small model give logits of 1e-28, whose bits move, though in
    float32 they mean the same for every token.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._reference: dict[int, torch.Tensor] = {}

    def add(self, rows: list[Row], logits: torch.Tensor) -> None:
        """Compare the first of `logits` [rows, vocabulary] with the unperturbed row there."""
        span, position = rows[0]
        name = span.change.partition(":")[2]
        now = torch.log_softmax(logits[:1].detach().float(), dim=-1).double()
        now -= now.mean()
        if name == UNPERTURBED:
            self._reference[position] = now
            return
        reference = self._reference[position]
        moved = torch.linalg.vector_norm(now - reference)
        effect = float(moved / torch.linalg.vector_norm(reference)) if moved != 0 else 0.0
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"change": name, "effect": effect}) + "\n")
