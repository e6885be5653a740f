"""Found through PYTHONPATH: makes the model host of a test die, hang or run out of memory.

A prompt with the word "poison" kills the process, one with "tarpit" never comes back, one
with "glutton" finds no memory, one with "breaker" breaks the device. All else is drawn as ever.
"""

import os
import signal
import sys
import threading

if "worker.host" in sys.orig_argv:
    import torch

    from crossmodal.models.contract import Batch, Outcome
    from crossmodal.models.drawing import BundleDrawing

    draw = BundleDrawing.run

    def run(self: BundleDrawing, batch: Batch) -> list[Outcome]:
        prompts = [request.params.prompt for request in batch]
        if any("poison" in prompt for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any("tarpit" in prompt for prompt in prompts):
            threading.Event().wait()
        if any("glutton" in prompt for prompt in prompts):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if any("breaker" in prompt for prompt in prompts):
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return draw(self, batch)

    BundleDrawing.run = run  # type: ignore[method-assign]
