"""The items of a batch, made from an app's prompts or pictures."""

from collections.abc import Iterable, Iterator
from typing import Any

from crossmodal.errors import InvalidImage, InvalidParams
from crossmodal.jobs.bulk import BulkItem
from crossmodal.jobs.record import Failure, ItemResult
from crossmodal.kinds.fields import MAX_SEED, BlobRef
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import TXT2IMG
from crossmodal.unknown import shown
from producer.batches.bulk import Request
from producer.batches.seeds import item_seed
from producer.checks import check_several, check_task
from producer.pictures.files import Picture, bytes_of, is_picture

ANY_BLOB = BlobRef(key="any")


def prompt_items(
    prompts: Iterable[str], batch_id: str, options: dict[str, Any]
) -> Iterator[Request]:
    """Yield an item for each prompt, with its own seed.

    `options` are the params that all share. Raises `InvalidParams` for params that no model
    accepts; params that only their model refuses make each item fail.
    """
    several = check_several("prompts", prompts, but=isinstance(prompts, str | bytes))
    shared = TXT2IMG.build({"prompt": "any", **options})
    first: int | None = options.get("seed")

    def seed(i: int) -> int:
        if first is None:
            return item_seed(batch_id, i)
        return (first + i * shared.count) % (MAX_SEED + 1)

    return (
        (Task("txt2img"), BulkItem(str(i), {"prompt": prompt, **options, "seed": seed(i)}))
        for i, prompt in enumerate(several)
    )


def picture_items(
    images: Iterable[Picture], options: dict[str, Any], max_bytes: int
) -> Iterator[Request | ItemResult]:
    """Yield an item for each picture, read lazily; a failure for one that is invalid."""
    several = check_several("images", images, but=is_picture(images))
    IMG2TXT.build({"image": ANY_BLOB, **options})
    return (_picture_item(i, image, options, max_bytes) for i, image in enumerate(several))


def _picture_item(
    index: int, image: Picture, options: dict[str, Any], max_bytes: int
) -> Request | ItemResult:
    if isinstance(image, BlobRef):
        ref = image.model_dump(mode="json", exclude_none=True)
        return Task("img2txt"), BulkItem(str(index), options | {"image": ref})
    try:
        return Task("img2txt"), BulkItem(str(index), options, bytes_of(image, max_bytes))
    except InvalidImage as e:
        return ItemResult(index=index, custom_id=str(index), failure=Failure.of(e))


def checked_items(items: Iterable[Request | ItemResult]) -> Iterator[Request | ItemResult]:
    """Yield the same items. Raises `InvalidParams` on reaching what is no item."""
    return (_checked(given) for given in check_several("items", items))


def _checked(given: Any) -> Request | ItemResult:
    if isinstance(given, ItemResult):
        return given
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], BulkItem):
        return check_task(given[0]), given[1]
    raise InvalidParams(f"an item is {shown(given)}: give (task, BulkItem(…))")
