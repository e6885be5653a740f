"""Pictures of fifty megapixels and more, more of them at once than a worker takes jobs."""

import io
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from crossmodal.settings import load_settings
from producer import Client
from tests.workers import celery_worker, real_worker

CONCURRENCY = 4
REST = 200_000_000  # bytes of a worker beside what it decodes with, as docs/operations.md says


def large(kind: str, size: tuple[int, int], **options: Any) -> bytes:
    forms = Image.linear_gradient("L").resize(size)
    file = io.BytesIO()
    (forms if kind == "GIF" else forms.convert("RGB")).save(file, kind, **options)
    return file.getvalue()


def memory(processes: list[psutil.Process]) -> int:
    """Bytes that processes have, by their share of what is shared."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):  # it has just ended
            total += process.memory_full_info().pss
    return total


def test_large_pictures_at_full_concurrency_stay_within_the_memory_of_a_worker(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    files = [
        large("WEBP", (7000, 7000), method=0),
        large("GIF", (7071, 7071), transparency=0),
        large("JPEG", (12_000, 9_000)),
        large("PNG", (12_000, 9_000), compress_level=1),
    ]
    with real_worker(env, tmp_path / "worker", CONCURRENCY) as worker:
        celery, most = celery_worker(worker), 0
        jobs = [client.img2txt(data) for _ in range(2) for data in files]
        with ThreadPoolExecutor(len(jobs)) as pool:
            results = [pool.submit(job.result, timeout_s=200) for job in jobs]
            while wait(results, timeout=0.05).not_done:
                most = max(most, memory([celery, *celery.children(recursive=True)]))
        assert all(result.result().captions for result in results)
        assert celery.is_running()
    assert most <= load_settings().decode_memory + REST
    assert most > 200_000_000  # it was seen while it decoded
