"""Models as the gateway tells of them."""

import httpx2

from crossmodal.jobs.models import Models
from crossmodal.jobs.record import ModelInfo, ServedKind
from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.schema import schema_of
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from producer import Client
from tests.gateway import in_thread

MODEL = ModelInfo(
    name="turbo",
    version="1",
    format="code",
    kinds={"txt2img": ServedKind(params=schema_of(Txt2ImgParams))},
)


def test_who_hears_that_a_model_is_loaded_reads_no_older_state(settings: Settings) -> None:
    workers = Workers(settings)
    with Client(settings) as client, in_thread(settings, needs_keys=False) as url:
        client.run(Models(settings).announce([MODEL]))
        for said in ("loading", "models"):
            client.run(workers.announce("one", queues=["txt2img.turbo"], **{said: ["turbo"]}))
            [model] = httpx2.get(f"{url}/v1/models").json()["data"]
            assert model["state"] == {"loading": "loading", "models": "loaded"}[said]


def test_a_list_has_some_words_of_a_model_and_the_model_alone_has_all(settings: Settings) -> None:
    words = Vocabulary.of(["dog"], ["dog", *map(str, range(9_000))])
    told = MODEL.model_copy(update={"vocabulary": words, "aliases": ("fast",), "load_s": 1.0})
    with Client(settings) as client, in_thread(settings, needs_keys=False) as url:
        client.run(Models(settings).announce([told]))
        assert client.model("fast").vocabulary == words
        [listed] = httpx2.get(f"{url}/v1/models").json()["data"]
        few = listed["vocabulary"]
        assert (few["count"], few["objects"], len(few["words"])) == (9_001, ["dog"], 199)
        for name in ("turbo", "fast"):
            one = httpx2.get(f"{url}/v1/models/{name}").json()
            assert one["vocabulary"] == words.model_dump(mode="json")


def test_a_name_of_openais_own_is_that_of_the_default_model(settings: Settings) -> None:
    """As /v1/images/generations and /v1/chat/completions take it; a model's own name goes first."""
    default = MODEL.model_copy(update={"default_for": ("txt2img",)})
    named = MODEL.model_copy(update={"name": "other", "aliases": ("dall-e-3",)})
    with Client(settings) as client, in_thread(settings, needs_keys=False) as url:
        client.run(Models(settings).announce([default, named]))
        for name, found in (("gpt-image-1", "turbo"), ("dall-e-2", "turbo"), ("dall-e-3", "other")):
            assert httpx2.get(f"{url}/v1/models/{name}").json()["name"] == found
        for nobody in ("gpt-4o", "another"):  # nothing here describes pictures
            assert httpx2.get(f"{url}/v1/models/{nobody}").status_code == 404
