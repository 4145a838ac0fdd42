"""A patch series that plants faults: the founding series and one patch more, for tests alone.

The patched engine asks at each place whether a fault was ordered: by a file `fault` in its capture
folder, or by PP_FAULT in its environment. An order is `ACTION RANK PLACE`, several parted by `;`.
So one variant tree, built and imported once, has them all, each at an exact moment.
"""

import shutil

from patch_on_top import add_patch

from harness.assets import patches_dir
from harness.engine.settings import Device
from harness.plan.installation import find_installation
from harness.source.pin import load_pins

VARIANT = "planted"
_MODULE = '''\
"""Planted faults: see tests/faults/planted.py of pp-harness."""

import os
import resource
import signal
import time


def planted(place, rank):
    """Do what was ordered for this place; return the orders that the caller has to carry out."""
    text = os.environ.get("PP_FAULT", "")
    try:
        with open(os.path.join(os.environ["PP_HARNESS_CAPTURE_DIR"], "fault")) as file:
            text = file.read()
    except OSError:
        pass
    actions = set()
    for order in text.split(";"):
        action, who, where = order.split() or ("", "-1", "")
        if where == place and int(who) == rank:
            actions.add(action)
    if "kill" in actions:
        os.kill(os.getpid(), signal.SIGKILL)
    if "stop" in actions:
        os.kill(os.getpid(), signal.SIGSTOP)
    if "exit" in actions:
        os._exit(3)
    if "hang" in actions:
        time.sleep(3600)
    if "raise" in actions:
        raise ValueError("a planted fault")
    if "escape" in actions:
        raise ValueError("\\x1b]0;owned\\x07\\x1b[31m<script>alert(1)</script>")
    if "memory" in actions:
        import torch

        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        limit = pages * resource.getpagesize() + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        torch.empty(1 << 30, dtype=torch.uint8)
    return actions
'''
_WORKER = "vllm/v1/worker/gpu_worker.py"
# (file, the line behind which lines come, the lines). The line must stand there once.
_EDITS = [
    (_WORKER, "import vllm.envs as envs\n", "from vllm.pp_planted import planted\n"),
    (
        _WORKER,
        "    def load_model(self, *, load_dummy_weights: bool = False) -> None:\n",
        '        planted("load", self.rank)\n',
    ),
    (
        _WORKER,
        "        with self.annotate_profile(scheduler_output):\n",
        "            new = bool(scheduler_output.scheduled_new_reqs)\n"
        '            planted("prefill" if new else "decode", self.rank)\n',
    ),
    (
        _WORKER,
        "            and not get_pp_group().is_last_rank\n        )\n",
        '        if "mute" in planted("send", self.rank):\n            return None\n',
    ),
    (
        _WORKER,
        "    ) -> ModelRunnerOutput | AsyncModelRunnerOutput:\n",
        '        planted("sample", self.rank)\n',
    ),
    (
        "vllm/v1/worker/cpu_worker.py",
        "    def compile_or_warm_up_model(self) -> CompilationTimes:\n",
        '        from vllm.pp_planted import planted\n\n        planted("warmup", self.rank)\n',
    ),
    # Not the shared memory of the CPU, which gives all or nothing, but the way of GPUs.
    (
        "vllm/distributed/device_communicators/cpu_communicator.py",
        "        self.supports_tensor_dict = isinstance(self.dist_module, _CPUSHMDistributed)\n",
        "        from vllm.pp_planted import planted\n\n"
        '        if "messages" in planted("start", -1):\n'
        "            self.dist_module = torch.distributed\n"
        "            self.supports_tensor_dict = False\n",
    ),
    (
        "vllm/distributed/parallel_state.py",
        "            comm_group = metadata_group if tensor.is_cpu else group\n"
        "            handle = torch.distributed.isend(\n",
        None,
    ),
]
_FEWER = """\
            from vllm.pp_planted import planted

            if key == "per_layer_inputs" and "fewer" in planted("send", self.rank):
                continue
"""


def planted_series(folder, version):
    """Write the series into `folder`, against a pin's installed release ("": the default pin)."""
    pins = load_pins(patches_dir())
    pin = pins.get(version) if version else pins.default
    installed = find_installation(pin, Device.CPU).vllm
    shutil.copytree(patches_dir() / pin.series, folder)
    root = installed.package_dir.parent
    texts = {name: (root / name).read_text() for name, _, _ in _EDITS}
    changed = dict(texts)
    for name, anchor, lines in _EDITS:
        assert changed[name].count(anchor) == 1, (name, anchor)
        new = _FEWER + anchor if lines is None else anchor + lines
        changed[name] = changed[name].replace(anchor, new)
    changes = {name: (texts[name], text) for name, text in changed.items()}
    changes["vllm/pp_planted.py"] = (None, _MODULE)
    add_patch(folder, VARIANT, pin.version, changes)
    return folder
