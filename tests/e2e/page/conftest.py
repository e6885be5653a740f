"""One world for all tests of the page that need models of their own."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.page import opened
from tests.studio import Studio, running_studio


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with running_studio(tmp_path_factory.mktemp("studio")) as studio:
        yield studio


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    with opened(browser, studio.gateway) as page:
        yield page
