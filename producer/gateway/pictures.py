"""The picture of a request, in the object store, under a key that the caller may name."""

from crossmodal.errors import BlobNotFound
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.params import BlobRef, Img2TxtParams, Params, Txt2ImgParams, build_params
from crossmodal.net import check_public, fetch
from producer.gateway.body import FileRequest
from producer.gateway.ownership import is_visible, missing
from producer.gateway.requests import ByData, ByKey, Img2TxtRequest, JobRequest
from producer.gateway.services import Services

DRAWING = {"prompt", "count", "seed", "temperature", "metadata"}
CAPTIONING = {"count", "beam_width", "max_words", "metadata"}


async def params_of(wanted: JobRequest, key: ApiKey, services: Services) -> Params:
    """The params of the job, its picture stored. Raises what is wrong with either."""
    if not isinstance(wanted, Img2TxtRequest):
        return build_params(Txt2ImgParams, wanted.model_dump(include=DRAWING))
    image = await _stored(wanted, key, services)
    options = wanted.model_dump(include=CAPTIONING)
    return build_params(Img2TxtParams, options | {"image": image})


async def _stored(wanted: Img2TxtRequest, key: ApiKey, services: Services) -> BlobRef:
    if isinstance(wanted, FileRequest):
        return await services.call_store(services.sync.upload, wanted.data, owner=key.id)
    image = wanted.image
    if isinstance(image, ByData):
        return await services.call_store(services.sync.upload, image.data, owner=key.id)
    if isinstance(image, ByKey):
        await services.call_store(check_blob, image.key, key, services)
        return BlobRef(key=image.key)
    settings = services.settings
    services.check_image_urls()
    check_public(image.url, settings.allow_private_urls, "image.url")
    data = await fetch(
        image.url, max_bytes=settings.max_image_bytes, timeout_s=settings.fetch_timeout_s,
        allow_private=settings.allow_private_urls,
    )  # fmt: skip
    return await services.call_store(services.sync.upload, data, owner=key.id)


def check_blob(blob: str, key: ApiKey, services: Services) -> int:
    """The size of a blob that the caller may see. Raises `BlobNotFound` for any other."""
    visible = is_visible(blob, key.id, services.sync)
    found = services.sync.storage.head(blob) if visible else None
    if found is None:
        raise BlobNotFound(missing("blob", blob, key.id))
    return found.size
