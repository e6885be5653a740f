"""How queues are called: by kind, model and lane."""

import pytest
from pydantic import ValidationError

from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams


@pytest.mark.parametrize(
    ("name", "task", "model"),
    [
        ("txt2img", "txt2img", None),
        ("img2txt.bulk", "img2txt.bulk", None),
        ("txt2img.turbo", "txt2img", "turbo"),
        ("txt2img.sd-v1.5.bulk", "txt2img.bulk", "sd-v1.5"),
    ],
)
def test_a_name_says_kind_model_and_lane(name: str, task: str, model: str | None) -> None:
    queue = Queue.parse(name)
    assert (queue.task, queue.model, str(queue)) == (task, model, name)
    assert queue.in_bulk.of_items == queue.of_items
    assert queue.in_bulk.task is Task(queue.task.kind.name).in_bulk


@pytest.mark.parametrize("name", ["celery", "", "txt2vid.turbo", "txt2img.a b", "txt2img..bulk"])
def test_what_is_no_queue_of_jobs_is_none(name: str) -> None:
    with pytest.raises(ValueError, match=r"there is no task|is not a valid model name"):
        Queue.parse(name)


@pytest.mark.parametrize("name", ["bulk", "a.bulk", "x.pidbox", "", "a/b", "-a", "a" * 65, "ä"])
def test_no_model_is_called_so(name: str) -> None:
    with pytest.raises(ValidationError, match="is not a valid model name"):
        Txt2ImgParams(prompt="a", model=name)
