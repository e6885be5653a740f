"""Which model is loaded next, and which is given up for it."""

from worker.switch import Resident, Switch, choose

ROOM = 100
LIMIT_S = 30.0


def loaded(name: str, **known: object) -> Resident:
    return Resident(name, **({"needs": 60, "is_wanted": True, "is_loaded": True} | known))  # type: ignore[arg-type]


def wanting(name: str, wait_s: float = 1.0, **known: object) -> Resident:
    return Resident(name, **({"needs": 60, "waiting": 3, "oldest_wait_s": wait_s} | known))  # type: ignore[arg-type]


def test_without_jobs_nothing_is_switched() -> None:
    assert choose([loaded("a"), Resident("b", 60)], ROOM, LIMIT_S) is None


def test_what_fits_is_loaded_beside_the_others() -> None:
    assert choose([loaded("a", waiting=9), wanting("b", needs=40)], ROOM, LIMIT_S) == Switch("b")


def test_what_has_nothing_to_do_makes_room() -> None:
    assert choose([loaded("a"), wanting("b")], ROOM, LIMIT_S) == Switch("b", ("a",))


def test_what_has_jobs_stays_until_another_has_waited_for_too_long() -> None:
    busy = loaded("a", waiting=5, stayed_s=100.0, load_s=2.0)
    assert choose([busy, wanting("b", 29.0)], ROOM, LIMIT_S) is None
    assert choose([busy, wanting("b", 30.0)], ROOM, LIMIT_S) == Switch("b", ("a",))


def test_what_runs_a_job_has_something_to_do() -> None:
    assert choose([loaded("a", in_hand=1), wanting("b")], ROOM, LIMIT_S) is None


def test_what_has_just_been_loaded_stays_for_some_times_as_long_as_that_took() -> None:
    late = wanting("b", 300.0)
    fresh = loaded("a", waiting=5, load_s=20.0, stayed_s=59.0)
    assert choose([fresh, late], ROOM, LIMIT_S) is None
    stayed = loaded("a", waiting=5, load_s=20.0, stayed_s=60.0)
    assert choose([stayed, late], ROOM, LIMIT_S) == Switch("b", ("a",))


def test_what_is_pinned_is_never_given_up() -> None:
    pinned = loaded("a", is_pinned=True, stayed_s=1_000.0)
    assert choose([pinned, wanting("b", 300.0)], ROOM, LIMIT_S) is None


def test_the_longest_idle_goes_first_and_no_more_than_must() -> None:
    idle = [
        loaded("a", needs=30, idle_s=5.0),
        loaded("b", needs=30, idle_s=50.0),
        loaded("c", needs=30, waiting=1),
    ]
    assert choose([*idle, wanting("d", needs=40)], ROOM, LIMIT_S) == Switch("d", ("b",))
    assert choose([*idle, wanting("d", needs=70)], ROOM, LIMIT_S) == Switch("d", ("b", "a"))


def test_who_waits_longest_goes_first() -> None:
    both = [loaded("a"), wanting("b", 1.0), wanting("c", 2.0)]
    assert choose(both, ROOM, LIMIT_S) == Switch("c", ("a",))


def test_who_cannot_have_room_keeps_nobody_behind_it_waiting() -> None:
    busy = loaded("a", needs=50, waiting=1)
    assert choose([busy, wanting("big", 9.0), wanting("small", needs=50)], ROOM, LIMIT_S) == Switch(
        "small"
    )


def test_what_needs_more_than_there_is_has_the_device_for_itself() -> None:
    assert choose([loaded("a"), wanting("b", needs=500)], ROOM, LIMIT_S) == Switch("b", ("a",))


def test_one_is_loaded_after_another() -> None:
    coming = loaded("a", needs=10, is_loaded=False)
    assert choose([coming, wanting("b", 300.0, needs=10)], ROOM, LIMIT_S) is None


def test_what_another_worker_has_is_loaded_only_where_that_is_not_enough() -> None:
    assert choose([loaded("a"), wanting("b", 1.0, is_elsewhere=True)], ROOM, LIMIT_S) is None
    late = wanting("b", 31.0, is_elsewhere=True)
    assert choose([loaded("a"), late], ROOM, LIMIT_S) == Switch("b", ("a",))


def test_what_another_worker_is_about_to_have_is_left_to_it() -> None:
    assert choose([loaded("a"), wanting("b", 300.0, is_coming=True)], ROOM, LIMIT_S) is None
