"""The lines of a batch job's file, as they are checked on arrival."""

import json
from pathlib import Path

import pytest

from crossmodal.errors import BrokerUnavailable, CrossmodalError, InvalidParams, StorageUnavailable
from producer.batches.jsonl import REFUSED
from producer.gateway.intake import check_lines

LINE = {"url": "/v1/img2txt", "body": {"image": {"key": "results/a/0.png"}}}


def checked(folder: Path, error: CrossmodalError | None = None) -> list[dict[str, object]]:
    """The lines that are kept of a file of one, whose picture a caller may name or not."""
    source, target = folder / "source", folder / "target"
    source.write_text(json.dumps(LINE) + "\n")

    def may_name(key: str) -> bool:
        if error is not None:
            raise error
        return False

    for _ in check_lines(source, target, may_name, "me"):
        pass
    return [json.loads(line) for line in target.read_text().splitlines()]


def test_a_line_that_may_not_name_its_picture_is_kept_with_its_error(tmp_path: Path) -> None:
    [line] = checked(tmp_path)
    assert line[REFUSED]["code"] == "blob_not_found"  # type: ignore[index]


def test_a_line_with_a_fault_of_its_own_fails_alone(tmp_path: Path) -> None:
    [line] = checked(tmp_path, InvalidParams("no such key"))
    assert line[REFUSED]["code"] == "invalid_params"  # type: ignore[index]


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), StorageUnavailable("away")])
def test_an_outage_is_no_fault_of_a_line(tmp_path: Path, error: CrossmodalError) -> None:
    """The file is refused as a whole, and may be sent again."""
    with pytest.raises(type(error)):
        checked(tmp_path, error)
