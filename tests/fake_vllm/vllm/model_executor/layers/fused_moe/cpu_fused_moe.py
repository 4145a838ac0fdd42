"""The activations of experts in torch, as vLLM 0.20.2 has them on a CPU."""

from enum import Enum


class MoEActivation(Enum):
    SILU = "silu"
    GELU = "gelu"


class SiluAndMul:
    def __init__(self):
        raise AssertionError("Current vLLM config is not set.")

    @staticmethod
    def forward_native(x):
        return ("silu", x)


_CPU_MOE_ACT_FN = {
    MoEActivation.SILU: lambda x: SiluAndMul().forward_native(x),
    MoEActivation.GELU: lambda x: ("gelu", x),
}
