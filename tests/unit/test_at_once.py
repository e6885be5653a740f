from pathlib import Path

import pytest

from tests.at_once import at_once


@at_once("number, is_even", [(1, True), (2, True), (3, True), (4, False)])
def _wrong(number: int, is_even: bool) -> None:
    assert (number % 2 == 0) == is_even


def test_every_case_that_fails_is_named_and_no_other() -> None:
    with pytest.raises(pytest.fail.Exception) as caught:
        _wrong()
    said = str(caught.value)
    assert said.startswith("3 of 4 cases:")
    assert [f"number={n}" in said for n in (1, 2, 3, 4)] == [True, False, True, True]


@at_once("letter", "ab")
@at_once("number", [1, 2])
def test_fixtures_and_cases_are_told_apart(letter: str, number: int, tmp_path: Path) -> None:
    assert letter in "ab"
    assert number in (1, 2)
    assert tmp_path.is_dir()


def test_no_case_at_all_is_a_fault() -> None:
    @at_once("number", [])
    def empty(number: int) -> None: ...

    with pytest.raises(AssertionError, match="no case"):
        empty()


def test_a_case_that_is_skipped_skips_the_test_once_all_others_have_passed() -> None:
    run: list[int] = []

    @at_once("number", [1, 2])
    def skipped(number: int) -> None:
        if number == 1:
            pytest.skip("not here")
        run.append(number)

    with pytest.raises(pytest.skip.Exception, match="not here"):
        skipped()
    assert run == [2]


@pytest.mark.parametrize("numbers", [[1, 2], [2, 1]])
def test_a_case_that_is_skipped_hides_no_fault(numbers: list[int]) -> None:
    @at_once("number", numbers)
    def skipped(number: int) -> None:
        if number == 1:
            pytest.skip("not here")
        raise AssertionError("wrong")

    with pytest.raises(pytest.fail.Exception, match="1 of 2 cases"):
        skipped()
