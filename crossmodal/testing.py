"""Fake clients for an app's tests, which run jobs in process. See docs/python.md.

from crossmodal.testing import FakeClient

def test_a_picture_is_made() -> None:
    client = FakeClient()
    assert client.txt2img("a red circle").result().images
"""

from crossmodal.errors import NotFaked
from producer.fake.client import AsyncFakeClient, FakeClient
from producer.fake.worker import Describe, Draw

__all__ = ["AsyncFakeClient", "Describe", "Draw", "FakeClient", "NotFaked"]
