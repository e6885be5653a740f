"""The lanes of a Celery worker: of each model its own."""

from worker.celery.lanes import Lanes


def test_the_queues_of_a_model_share_its_lanes() -> None:
    lanes = Lanes(8, 2)
    for queue in ("txt2img", "img2txt", "txt2img.bulk"):
        lanes.assign(queue, "scenes")
    assert lanes.of("txt2img") is lanes.of("img2txt")
    assert lanes.of("txt2img") is not lanes.of("txt2img.bulk")
    assert lanes.of("celery") is lanes.interactive
    assert lanes.of("other.bulk") is lanes.bulk


def test_a_model_has_no_more_in_hand_than_it_can_use() -> None:
    lanes = Lanes(8, 4)
    lanes.assign("txt2img.slow", "slow")
    lanes.assign("txt2img.slow.bulk", "slow")
    lanes.limit_model("slow", 2)
    assert [lanes.of(q).limit for q in ("txt2img.slow", "txt2img.slow.bulk", "txt2img")] == [
        2,
        2,
        8,
    ]
    lanes.limit_model("slow", 100)
    assert [lanes.of(q).limit for q in ("txt2img.slow", "txt2img.slow.bulk")] == [8, 4]


def test_what_a_model_has_in_hand_is_counted_apart() -> None:
    lanes = Lanes(8, 2)
    lanes.assign("txt2img.a", "a")
    lanes.assign("txt2img.a.bulk", "a")
    lanes.of("txt2img.a").tags.add("1")
    lanes.of("txt2img.a.bulk").tags.add("2")
    lanes.of("txt2img").tags.add("3")
    assert (lanes.in_hand("a"), lanes.in_hand("b")) == (2, 0)
    assert lanes.tags == {"1", "2", "3"}


def test_interactive_lanes_come_first() -> None:
    lanes = Lanes(8, 2)
    lanes.assign("txt2img.a.bulk", "a")
    lanes.assign("txt2img.a", "a")
    assert [lane.limit for lane in lanes] == [8, 8, 2, 2]
    assert lanes.limits == (16, 4)
