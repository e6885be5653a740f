"""What callers are told of failures: never where Redis or the object store is."""

from collections.abc import Iterator

import httpx2
import pytest

from crossmodal.errors import BrokerUnavailable, StorageNotWritable, StorageUnavailable
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Failure
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from producer import Client
from producer.told import failure_view
from tests.integration.test_gateway_fields import Http, asked
from tests.ledgers import Ledger
from tests.unit.test_ledger import WORKER

ADDRESS = "10.0.0.7:9000"
ERRORS = [
    StorageUnavailable(f"s3://pictures at {ADDRESS} failed on 'results/a'"),
    StorageNotWritable(f"s3://pictures at {ADDRESS} cannot be written"),
    BrokerUnavailable(f"Redis at {ADDRESS} does not answer"),
]


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_a_failed_job_names_no_address(
    client: Client, settings: Settings, error: StorageUnavailable
) -> None:
    key, token = client.keys.create("a")
    handle = client.submit(Txt2ImgParams(prompt="a"), origin=Origin(key.id))
    ledger = Ledger(settings)
    attempt = ledger.start(handle.id, WORKER)
    assert isinstance(attempt, Attempt)
    ledger.fail(attempt, Failure.of(error), dead=True)
    ledger.close()
    who = {"Authorization": f"Bearer {token}"}

    async def ask(http: Http) -> list[httpx2.Response]:
        paths = (
            f"/v1/jobs/{handle.id}",
            f"/v1/jobs/{handle.id}/result",
            "/v1/jobs",
            "/v1/dead-letters",
        )
        return [await http.get(path, headers=who) for path in paths]

    for reply in asked(settings, ask, needs_keys=True):
        assert error.code in reply.text
        assert ADDRESS not in reply.text


def test_what_is_wrong_with_a_request_is_told_in_full() -> None:
    failure = Failure(code="unknown_words", message="no word is known")
    assert failure_view(failure) == failure
