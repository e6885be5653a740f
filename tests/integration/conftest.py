"""What tests of a gateway with a real worker behind it share."""

from collections.abc import Iterator

import pytest

from tests.background import background
from tests.conftest import RunningStack
from tests.gateway import Gateway, running_gateway


@pytest.fixture(scope="module")
def gateway(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway, and a background process."""
    folder = tmp_path_factory.mktemp("gateway")
    with background(stack.env, folder / "background"), running_gateway(stack.env, folder) as one:
        yield one
