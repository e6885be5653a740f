"""Many cases as one test, which names every case that fails."""

import inspect
import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import pytest

Test = Callable[..., None]


def at_once(names: str, cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test for each case, as `pytest.mark.parametrize` does, with one set of fixtures."""
    wanted = names.replace(",", " ").split()
    given = [dict(zip(wanted, case if len(wanted) > 1 else [case], strict=True)) for case in cases]

    def decorate(test: Test) -> Test:
        @wraps(test)
        def of_all(**fixtures: Any) -> None:
            assert given, "there is no case"
            faults, skipped = [], []
            for case in given:
                try:
                    test(**fixtures, **case)
                except pytest.skip.Exception as skip:
                    skipped.append(skip)
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - it is reported
                    faults.append(_told(case, error))
            if faults:
                said = "\n\n".join([f"{len(faults)} of {len(given)} cases:", *faults])
                pytest.fail(said, pytrace=False)
            if skipped:
                raise skipped[0]

        signature = inspect.signature(test)
        fixtures = [p for name, p in signature.parameters.items() if name not in wanted]
        of_all.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return of_all

    return decorate


def _told(case: dict[str, Any], error: BaseException) -> str:
    """Describe a case's failure, with the line of the test."""
    [_, *frames] = traceback.extract_tb(error.__traceback__)
    line = frames[0].lineno if frames else 0
    said = ", ".join(f"{name}={value!r:.200}" for name, value in case.items())
    return f"{said}\n  line {line}: {type(error).__name__}: {error}"
