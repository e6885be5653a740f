"""The code on the page about Python is run, by clients whose jobs are answered in process."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import crossmodal
import producer
from crossmodal.errors import BrokerUnavailable, CrossmodalError
from crossmodal.testing import AsyncFakeClient, FakeClient
from tests.unit.test_client_names import methods

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
PNG = b"\x89PNG"


def blocks() -> dict[str, str]:
    """The code on the page, each block by the heading that it is under."""
    sections = [part.partition("\n") for part in PAGE.split("\n## ")]
    found = {
        name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, _, text in sections
    }
    return {name: code for name, codes in found.items() for code in codes}


CODE = blocks()
SHORT = {  # heading -> what its code prints
    "# Python": r"\d+ caption 1 of picture \w{8}\n",
    "Submitting": r"(caption 1 of picture \w{8}\n){6}",
    "Many at once": r"(.*(results/catalog-7.0/|invalid_prompt).*\n){3}2\n",
    "Errors": r"\(ImageRef\(.*\n",
    "asyncio": r"([0-9a-f-]{36} \d+\n){3}",
}
IN_A_KERNEL = {"Notebooks"}  # by tests/clients/test_notebooks.py


@pytest.fixture(autouse=True)
def _answered_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, fake in {"Client": FakeClient, "AsyncClient": AsyncFakeClient}.items():
        monkeypatch.setitem(vars(crossmodal), name, fake)


Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Makes a module of the code under a heading."""
    monkeypatch.chdir(tmp_path)

    def made(heading: str, name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(CODE[heading])
        module = ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(CODE[heading], module.__file__, "exec"), module.__dict__)
        return module

    return made


def test_every_block_is_run_by_a_test_below() -> None:
    assert set(CODE) == {*SHORT, *IN_A_KERNEL, "FastAPI", "Flask", "Django", "Testing an app"}
    assert PAGE.count("```python") == len(CODE)


def test_the_short_examples_print_what_they_made(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    for heading, says in SHORT.items():
        load(heading, "example")
        assert re.fullmatch(says, capsys.readouterr().out), heading


def test_a_fastapi_app_draws_and_describes(load: Load) -> None:
    from fastapi.testclient import TestClient

    client = AsyncFakeClient()
    with TestClient(load("FastAPI", "app").make_app(client)) as http:
        job = http.post("/pictures", params={"prompt": "a red circle"}).json()["job"]
        assert http.get(f"/jobs/{job}").json()["state"] == "succeeded"
        assert http.get(f"/jobs/{job}/picture").content.startswith(PNG)
        png = client.sync.read(client.sync.job(job).result().images[0])
        described = http.post("/captions", files={"photo": png}).json()["job"]
        assert http.get(f"/jobs/{described}/picture").status_code == 404
        assert http.post("/captions", files={"photo": b"?"}).json()["code"] == "invalid_image"
        assert http.get("/jobs/nobody").status_code == 404
        client.sync.refuse_next(BrokerUnavailable("Redis is away"))
        assert http.post("/pictures", params={"prompt": "a"}).status_code == 503


def test_a_flask_app_draws_and_describes(load: Load) -> None:
    client = FakeClient()
    http = load("Flask", "app").make_app(client).test_client()
    job = http.post("/pictures", data={"prompt": "a red circle"}).json["job"]
    png = http.get(f"/jobs/{job}/picture").data
    assert png.startswith(PNG)
    described = http.post("/captions", data={"photo": _file(png)})
    assert http.get(f"/jobs/{described.json['job']}").json["state"] == "succeeded"
    assert http.get(f"/jobs/{described.json['job']}/picture").status_code == 404
    assert http.post("/pictures", data={"prompt": ""}).json["code"] == "invalid_prompt"
    assert http.get("/jobs/nobody").status_code == 404


@pytest.fixture
def django() -> Iterator[Any]:
    """Django, whose settings can be made once a process."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="none", USE_TZ=True)
    from django.test import Client, override_settings

    with override_settings(ROOT_URLCONF="urls"):
        yield Client()


def test_a_django_app_draws_and_describes(load: Load, django: Any) -> None:
    load("Django", "urls")
    job = django.post("/pictures", {"prompt": "a red circle"}).json()["job"]
    assert django.get(f"/jobs/{job}").json()["state"] == "succeeded"
    png = django.get(f"/jobs/{job}/picture").content
    assert png.startswith(PNG)
    described = django.post("/captions", {"photo": _file(png)}).json()["job"]
    assert django.get(f"/jobs/{described}/picture").status_code == 404
    assert django.post("/pictures").json()["code"] == "invalid_prompt"
    assert django.post("/captions").json()["code"] == "invalid_image"
    for page in ("/jobs/nobody", "/jobs/nobody/picture"):
        answer = django.get(page)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_the_tests_of_an_app_pass(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(pytester.path)
    pytester.makepyfile(app=CODE["Flask"], test_app=CODE["Testing an app"])
    pytester.inline_run("-p", "no:cacheprovider").assertoutcome(passed=4)


def _file(data: bytes) -> Any:
    file = io.BytesIO(data)
    file.name = "a.png"
    return file


# -- the tables -------------------------------------------------------------------------


def test_every_method_is_on_the_page() -> None:
    fakes = methods(FakeClient).keys() - methods(producer.Client).keys()
    named = methods(producer.Client).keys() | methods(producer.JobHandle).keys() | fakes
    assert {name for name in named if f"`{name}(" not in PROSE} == set()


def test_every_error_is_on_the_page_with_its_code() -> None:
    kinds = [getattr(producer, name) for name in producer.__all__]
    errors = [k for k in kinds if isinstance(k, type) and issubclass(k, CrossmodalError)]
    rows = {f"| `{k.__name__}` | `{k.code}` | {'yes' if k.retryable else 'no'} |" for k in errors}
    assert {row for row in rows if row not in PROSE} == set()
    assert PROSE.count("\n| `", PROSE.index("| error |"), PROSE.index("## asyncio")) == len(rows)
