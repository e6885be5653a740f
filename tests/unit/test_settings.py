import traceback

import pytest

from crossmodal.errors import InvalidSetting
from crossmodal.settings import load_settings, redacted
from producer import Client
from tests.at_once import at_once

SECRET = "hunter2"


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSMODAL_MAX_BATCH", "4")
    assert load_settings().max_batch == 4
    assert load_settings(max_batch=8).max_batch == 8
    assert load_settings(max_batch=None).max_batch == 4


def test_a_setting_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="connect_timeout"):
        load_settings(connect_timeout=1)


def test_a_client_may_be_given_settings_and_single_ones_beside() -> None:
    given = load_settings(max_batch=8)
    with Client(given, connect_timeout_s=1) as client:
        assert (client.settings.max_batch, client.settings.connect_timeout_s) == (8, 1)
    with pytest.raises(InvalidSetting, match="CROSSMODAL_CONNECT_TIMEOUT_S"):
        Client(given, connect_timeout_s=-1)


def test_a_bad_variable_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSMODAL_MAX_BATCH", "many")
    with pytest.raises(InvalidSetting, match=r"CROSSMODAL_MAX_BATCH.*'many'"):
        load_settings()


def test_an_empty_result_backend_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "")
    assert load_settings().result_backend is None


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", f"redis://:{SECRET}@queue:6379/0")
    assert SECRET not in repr(load_settings())
    assert SECRET not in str(load_settings().model_dump())


@at_once(
    "url, shown",
    [
        ("redis://u:hunter2@queue:6379/0", "redis://u:***@queue:6379/0"),
        ("redis://queue:6379/0", "redis://queue:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        (
            "sentinel://:hunter2@a:1/0;sentinel://:hunter2@b:1",
            "sentinel://:***@a:1/0;sentinel://:***@b:1",
        ),
        ("redis://queue/0?password=hunter2&x=1", "redis://queue/0?password=***&x=1"),
        ("https://bucket/key?X-Amz-Signature=hunter2", "https://bucket/key?X-Amz-Signature=***"),
        ("abfss://container@account/x", "abfss://container@account/x"),
        ("file:///home/me@work/x", "file:///home/me@work/x"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert redacted(url) == shown


@at_once(
    "url",
    [
        "redis://:p#hunter2@queue:6379/0",
        "redis://:p/hunter2@queue:6379/0",
        "redis://:p?hunter2@queue:6379/0",
        "redis://:p@hunter2@queue:6379/0",
        "redis://:p;hunter2@queue:6379/0",
        "redis://:p hunter2@queue:6379/0",
        "redis://queue/0?password=p@hunter2",
        "redis://:hunter2",
        "redis://queue:hunter2/0",
    ],
)
def test_a_password_that_should_have_been_encoded_is_not_shown_either(url: str) -> None:
    assert SECRET not in redacted(url)


def test_a_stores_url_holds_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"s3://somebody:{SECRET}@bucket/prefix", f"az://container/x?sig={SECRET}"):
        monkeypatch.setenv("CROSSMODAL_STORAGE_URL", url)
        with pytest.raises(InvalidSetting, match="credentials") as caught:
            load_settings()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
