"""The device of these tests: a GPU, or the CPU where CROSSMODAL_TEST_DEVICE=cpu tries them out."""

import os
from collections.abc import Iterator

import pytest
import torch

from worker.host.device import open_device


@pytest.fixture(scope="session")
def device() -> Iterator[torch.device]:
    """What is computed on, opened as a model host does."""
    name = os.environ.get("CROSSMODAL_TEST_DEVICE", "cuda")
    if name != "cpu" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device; CROSSMODAL_TEST_DEVICE=cpu tries this on the CPU")
    threads = torch.get_num_threads()
    yield open_device(name)
    torch.set_num_threads(threads)
