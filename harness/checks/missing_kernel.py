"""The kernel that a CPU build of vLLM lacks, by name, from the exception that asked for it.

Such a model cannot be judged on a CPU: PP=1 does not run either, and there is nothing to fix in it.
"""

import re

from ..capture.manifest import Failure

# As torch words it where no library registers an operation (a compiled file lacks it), where one
# does for other devices, and where a kernel takes other dtypes.
_OPERATION = re.compile(
    r"'_OpNamespace' '(?P<namespace>\w+)' object has no attribute '(?P<name>\w+)'"
)
# A checkout may call an operation otherwise than the release that lends its compiled files has it.
_SCHEMA = re.compile(
    r"(?P<name>_\w*::\w+)\(\) (?:expected at most \d+ argument|is missing value for argument)"
)
# vLLM's stand-ins for Triton's kernels on a CPU, where what calls them has moved on.
_STAND_IN = re.compile(r"TypeError: _(?P<name>\w+_kernel)_impl\(\) (?:got an|takes|missing)")
_BACKEND = re.compile(r"Could not run '(?P<name>[\w:.]+)' with arguments from the 'CPU' backend")
_DTYPE = re.compile(r"NotImplementedError: \"(?P<name>\w+)\" not implemented for '(?P<dtype>\w+)'")
# vLLM's own refusals, as of its CPU platform: "MLA is not supported on CPU."
_REFUSED = re.compile(
    r"NotImplementedError: (?P<name>[^\n]{1,80}?) (?:is|are) (?:not |un)supported (?:on|in|by) "
    r"(?:the )?CPU"
)
_ELSEWHERE = re.compile(
    r"NotImplementedError: (?P<name>[^\n]{1,80}?) is (?:only supported|supported only) "
    r"(?:on|for|by) (?:CUDA|ROCm|GPU)"
)
# Kernels of packages that only GPU builds bring along.
_PACKAGE = re.compile(
    r"ModuleNotFoundError: No module named "
    r"'(?P<name>(?:flashinfer|cutlass|deep_gemm|flash_mla)\b[\w.]*)'"
)
# "no valid sparse MLA backend is available", "requires the CUDA flash attention extensions".
_NO_BACKEND = re.compile(r"\b[Nn]o valid (?P<name>[\w ]{1,60}? backend) is available")
_CUDA_PART = re.compile(r"ImportError: [\w.]+ requires the (?P<name>CUDA [\w ]{1,60}? extensions)")
# As vLLM's CPU kernels refuse weights: "expect weight to be bfloat16, float16, int8".
_WEIGHTS = re.compile(r"RuntimeError: expect weight to be (?P<name>[\w, ()]{1,80})")
# The function that picks a kernel of matrix products for a CPU reads every weight as a matrix.
_DISPATCH = re.compile(r"in (?P<name>dispatch_cpu_unquantized_gemm)\n[^\n]*\n(?:[ ~^]*\n)?\w*Error")
# How experts are chosen on a CPU: by a softmax, or in groups.
_ROUTER = re.compile(
    r"cpu_router\.py\", line \d+[^\n]*\n *assert self\.scoring_func == \"(?P<name>\w+)\""
)
# The V2 runner's kernels are Triton's, of which a CPU has none.
_RUNNER = re.compile(r"Model Runner V1 does not support|requires the V2 model runner")
# vLLM's kernels for a CPU: "Unsupported CPU attention configuration: head_dim=16 isa=2".
_CONFIGURATION = re.compile(r"Unsupported (?P<name>CPU [\w ]{1,40} configuration: [\w= ]{1,60})")
# vLLM puts an empty module in the place of Triton where there is no GPU; its decorator leaves a
# kernel the plain function that it decorates.
_TRITON = re.compile(r"module '(?P<module>triton[\w.]*)' has no attribute '(?P<name>\w+)'")
_PLAIN_KERNEL = "TypeError: 'function' object is not subscriptable"
_LAUNCH = re.compile(r"^\s+(?:[\w., ]+ = )?(?P<name>\w+)\[", re.MULTILINE)


def missing_kernel(failure: Failure) -> str | None:
    """Name the kernel for want of which an engine on a CPU failed, None if that is no cause."""
    if failure.ours:
        return None
    error = failure.error
    if match := _OPERATION.search(error):
        return f"torch.ops.{match['namespace']}.{match['name']}"
    if match := _SCHEMA.search(error) or _STAND_IN.search(error):
        return f"{match['name']} as it is called"
    if match := _TRITON.search(error):
        return f"{match['module']}.{match['name']}"
    if match := _DTYPE.search(error):
        return f"{match['name']} for {match['dtype']}"
    for wording in (
        _BACKEND,
        _REFUSED,
        _ELSEWHERE,
        _PACKAGE,
        _CONFIGURATION,
        _NO_BACKEND,
        _CUDA_PART,
    ):
        if match := wording.search(error):
            return match["name"]
    if match := _WEIGHTS.search(error):
        return f"a matrix product of weights other than {match['name']}"
    if match := _ROUTER.search(failure.traceback):
        return f"a choice of experts by other than {match['name']}"
    if _RUNNER.search(error):
        return "Triton, for the V2 runner"
    if match := _DISPATCH.search(failure.traceback):
        return match["name"]
    if _PLAIN_KERNEL in error:
        launches = _LAUNCH.findall(failure.traceback)
        return f"Triton's {launches[-1]}" if launches else None
    return None
