"""Found through PYTHONPATH: makes the model host of a test die, hang or run out of memory.

A prompt with the word "poison" kills the process, one with "tarpit" never comes back, one
with "glutton" finds no memory, one with "breaker" breaks the device. All else is drawn as ever.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence

if "worker.host" in sys.orig_argv:
    import torch

    from crossmodal.kinds.txt2img import Txt2ImgParams
    from crossmodal.pipelines.base import Outcome, Pause, Request, no_pause
    from crossmodal.pipelines.txt2img import Txt2ImgPipeline

    draw = Txt2ImgPipeline.run

    def run(
        self: Txt2ImgPipeline, batch: Sequence[Request], pause: Pause = no_pause
    ) -> list[Outcome]:
        prompts = [r.params.prompt for r in batch if isinstance(r.params, Txt2ImgParams)]
        if any("poison" in prompt for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any("tarpit" in prompt for prompt in prompts):
            threading.Event().wait()
        if any("glutton" in prompt for prompt in prompts):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if any("breaker" in prompt for prompt in prompts):
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return draw(self, batch, pause)

    Txt2ImgPipeline.run = run  # type: ignore[method-assign]
