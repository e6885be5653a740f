import pytest

from crossmodal.errors import InvalidSetting
from crossmodal.settings import load_settings, redacted


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSMODAL_MAX_BATCH", "4")
    assert load_settings().max_batch == 4
    assert load_settings(max_batch=8).max_batch == 8
    assert load_settings(max_batch=None).max_batch == 4


def test_a_bad_variable_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSMODAL_MAX_BATCH", "many")
    with pytest.raises(InvalidSetting, match=r"CROSSMODAL_MAX_BATCH.*'many'"):
        load_settings()


def test_an_empty_result_backend_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "")
    assert load_settings().result_backend is None


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:hunter2@queue:6379/0")
    assert "hunter2" not in repr(load_settings())
    assert redacted("redis://u:hunter2@queue:6379/0") == "redis://u:***@queue:6379/0"
    assert redacted("redis://queue:6379/0") == "redis://queue:6379/0"
