"""The kernel that a CPU build of vLLM lacks, by name, from the exception that asked for it.

Such a model cannot be judged on a CPU: PP=1 does not run either, and there is nothing to fix in it.
"""

import re

from ..capture.manifest import Failure

# What is named by most wordings, and by those of a kernel that is there and called otherwise.
_NAME, _CALLED = r"\g<name>", r"\g<name> as it is called"

# How torch or vLLM words an error, and what is then named.
_ERRORS = {
    # Where no library registers an operation: a compiled file lacks it.
    r"'_OpNamespace' '(?P<space>\w+)' object has no attribute '(?P<name>\w+)'": (
        r"torch.ops.\g<space>.\g<name>"
    ),
    # A checkout may call an operation otherwise than the release that lends its compiled files has
    # it, vLLM its stand-ins for Triton's kernels on a CPU, and some kernels refuse shapes.
    r"(?P<name>_\w*::\w+)\(\) (?:expected at most \d+ argument|is missing value for)": _CALLED,
    r"TypeError: _(?P<name>\w+_kernel)_impl\(\) (?:got an|takes|missing)": _CALLED,
    r"RuntimeError: (?P<name>\w+_(?:cpu|pack)): (?:expect|support only)": _CALLED,
    # "int8_scaled_mm_with_quant: expect A to be bfloat16 or half."
    r"RuntimeError: (?P<name>\w+): expect \w+ to be (?P<dtypes>[\w ,]{1,60})": (
        r"\g<name> for other than \g<dtypes>"
    ),
    # vLLM puts an empty module in the place of Triton where there is no GPU.
    r"module '(?P<module>triton[\w.]*)' has no attribute '(?P<name>\w+)'": r"\g<module>.\g<name>",
    # Where a kernel takes other dtypes, and where one is registered for other devices.
    r"NotImplementedError: \"(?P<name>\w+)\" not implemented for '(?P<dtype>\w+)'": (
        r"\g<name> for \g<dtype>"
    ),
    r"Could not run '(?P<name>[\w:.]+)' with arguments from the 'CPU' backend": _NAME,
    # vLLM's own refusals, as of its CPU platform: "MLA is not supported on CPU."
    r"NotImplementedError: (?P<name>[^\n]{1,80}?) (?:is|are) (?:not |un)supported "
    r"(?:on|in|by) (?:the )?CPU": _NAME,
    r"NotImplementedError: (?P<name>[^\n]{1,80}?) is (?:only supported|supported only) "
    r"(?:on|for|by) (?:CUDA|ROCm|GPU)": _NAME,
    r"NotImplementedError: (?P<name>\w+) is not implemented as lack of triton": _NAME,
    # Kernels of packages that only GPU builds bring along.
    r"ModuleNotFoundError: No module named "
    r"'(?P<name>(?:flashinfer|cutlass|deep_gemm|flash_mla)\b[\w.]*)'": _NAME,
    # "Unsupported CPU attention configuration: head_dim=16 isa=2".
    r"Unsupported (?P<name>CPU [\w ]{1,40} configuration: [\w= ]{1,60})": _NAME,
    # "no valid sparse MLA backend is available", "requires the CUDA flash attention extensions".
    r"\b[Nn]o valid (?P<name>[\w ]{1,60}? backend) is available": _NAME,
    r"ImportError: [\w.]+ requires the (?P<name>CUDA [\w ]{1,60}? extensions)": _NAME,
    # "expect weight to be bfloat16, float16, int8".
    r"RuntimeError: expect weight to be (?P<name>[\w, ()]{1,80})": (
        r"a matrix product of weights other than \g<name>"
    ),
    # The V2 runner's kernels are Triton's, of which a CPU has none.
    r"Model Runner V1 does not support|requires the V2 model runner": "Triton, for the V2 runner",
}
# The same of a traceback, where the error itself says too little.
_TRACEBACKS = {
    # How experts are chosen on a CPU: by a softmax, or in groups.
    r"cpu_(?:router|fused_moe)\.py\", line \d+[^\n]*\n"
    r" *assert (?:self\.)?scoring_func == \"(?P<name>\w+)\"": (
        r"a choice of experts by other than \g<name>"
    ),
    # The function that picks a kernel of matrix products for a CPU reads every weight as a matrix.
    r"in (?P<name>dispatch_cpu_unquantized_gemm)\n[^\n]*\n(?:[ ~^]*\n)?\w*Error": _NAME,
}
# Without a GPU Triton's decorator leaves a kernel the plain function that it decorates.
_PLAIN_KERNEL = "TypeError: 'function' object is not subscriptable"
_LAUNCH = re.compile(r"^\s+(?:[\w., ]+ = )?(?P<name>\w+)\[", re.MULTILINE)


def missing_kernel(failure: Failure) -> str | None:
    """Name the kernel for want of which an engine on a CPU failed, None if that is no cause."""
    if failure.ours:
        return None
    for text, wordings in ((failure.error, _ERRORS), (failure.traceback, _TRACEBACKS)):
        for pattern, named in wordings.items():
            if match := re.search(pattern, text):
                return match.expand(named)
    if _PLAIN_KERNEL in failure.error and (launches := _LAUNCH.findall(failure.traceback)):
        return f"Triton's {launches[-1]}"
    return None
