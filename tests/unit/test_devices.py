from pathlib import Path

import pytest

from crossmodal.errors import InvalidSetting
from crossmodal.settings import Settings
from tests.at_once import at_once
from tests.fakes.worker import served
from worker.crews import crews_of
from worker.devices import Device, cores, parse_devices


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nvidia-smi lists two GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA H200\necho NVIDIA H200\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("two_gpus")
def test_auto_is_every_gpu() -> None:
    assert parse_devices("auto") == [Device("cuda:0"), Device("cuda:1")]


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert parse_devices("auto") == [Device("cpu")]


@pytest.mark.usefixtures("two_gpus")
def test_devices_can_be_chosen() -> None:
    assert parse_devices("cpu, cuda:1") == [Device("cpu"), Device("cuda:1")]


@pytest.mark.usefixtures("two_gpus")
@at_once("name", ["cuda:2", "cuda", "cuda:x", "tpu", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InvalidSetting, match="2 GPUs"):
        parse_devices(name)


@pytest.mark.usefixtures("two_gpus")
def test_a_process_sees_its_own_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Device("cuda:1").environment() == {"CUDA_VISIBLE_DEVICES": "1"}
    assert Device("cpu").environment()["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert Device("cuda:1").environment() == {"CUDA_VISIBLE_DEVICES": "7"}
    assert (Device("cuda:1").slug, Device("cuda:1").torch_name) == ("cuda1", "cuda")


@pytest.mark.usefixtures("two_gpus")
def test_hidden_gpus_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert parse_devices("auto") == [Device("cuda:0")]
    for none in ("", "-1", "7", "-1,0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert parse_devices("auto") == [Device("cpu")]


def test_a_driver_that_fails_serves_no_gpu(two_gpus: None, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA H200\nexit 9\n")
    assert parse_devices("auto") == [Device("cpu")]


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"membership": "0::/\n", "cpu.max": "150000 100000\n"}, 2),
        ({"membership": "0::/of/this\n", "of/this/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "membership": "0::/of/this\n",
                "of/cpu.max": "300000 100000\n",
                "of/this/cpu.max": "max 100000\n",
            },
            3,
        ),
        (
            {
                "membership": "0::/of/this\n",
                "of/cpu.max": "200000 100000\n",
                "of/this/cpu.max": "900000 100000\n",
            },
            2,
        ),
        ({"membership": "0::/of/another\n", "of/this/cpu.max": "300000 100000\n"}, 64),
        ({"membership": "0::/gone\n", "cpu.max": "200000 100000\n"}, 2),
        ({}, 64),
    ],
)
def test_a_process_has_the_cores_of_its_quota(
    files: dict[str, str], limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores(tmp_path, tmp_path / "membership") == limit


@pytest.mark.parametrize(
    ("kind", "setting", "option", "in_hand"),
    [("cpu", None, None, 4), ("cuda", None, None, 8), ("cuda", 3, None, 3), ("cpu", 3, 2, 2)],
)
def test_how_many_bulk_messages_a_worker_has_in_hand(
    settings: Settings, kind: str, setting: int | None, option: int | None, in_hand: int
) -> None:
    own = settings.model_copy(update={"bulk_concurrency": setting})
    [crew] = crews_of(own, kind, served(), "txt2img.bulk", bulk_concurrency=option)
    assert crew.concurrency == in_hand
