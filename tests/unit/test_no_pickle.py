"""Nothing that comes from outside is unpickled, evaluated or trusted to be what it says."""

import ast
import base64
import io
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from crossmodal.errors import CheckpointMismatch, CrossmodalError, InvalidBundle, InvalidMessage
from crossmodal.jobs.message import message_of, parse_message
from crossmodal.jobs.names import new_job_id
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.networks.bundle import DATA_FILES, MANIFEST, Bundle, open_bundle, seal
from crossmodal.networks.weights import load_captioner, load_drawing, load_text
from crossmodal.settings import SHIPPED_BUNDLE
from crossmodal.training.checkpoint import Checkpoint
from tests.at_once import at_once
from worker.celery.calls import check_embedded, check_headers
from worker.host.protocol import pack, unpack

ROOT = Path(__file__).parents[2]
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "jsonpickle",
    "yaml",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
LOADERS = {
    "torch": {"load", "hub", "jit"},
    "np": {"load"},
    "numpy": {"load"},
    "KeyedVectors": {"load"},
    "Word2Vec": {"load"},
    "os": {"system", "popen"},
}


class Payload:
    """A pickle of this writes a file wherever it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that exists once the payload has run."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def test_the_payload_would_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "here")))
    assert (tmp_path / "here").exists()


def modules() -> list[Path]:
    return sorted(
        p for name in ("crossmodal", "producer", "worker") for p in (ROOT / name).rglob("*.py")
    )


def faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
            yield from sorted(names & FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
            names = {alias.name for alias in node.names} - {"UnpicklingError"}  # only caught
            yield from sorted(names)
        elif isinstance(node, ast.Call):
            yield from called(node)


def called(node: ast.Call) -> Iterator[str]:
    options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
    match node.func:
        case ast.Name(id=name) if name in FORBIDDEN_CALLS:
            yield name
        case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
            if options.get("weights_only") is not True:
                yield "torch.load without weights_only"
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if name in LOADERS.get(owner, ()):
            yield f"{owner}.{name}"
        case ast.Attribute(attr="from_pretrained"):
            if options.get("trust_remote_code") is not False:
                yield "from_pretrained without trust_remote_code=False"
    if options.get("shell") or options.get("allow_pickle"):
        yield "shell or allow_pickle"


@at_once("path", modules())
def test_no_module_unpickles_or_evaluates(path: Path) -> None:
    assert not list(faults(ast.parse(path.read_text())))


def test_what_must_not_be_is_found() -> None:
    program = """
import pickle, shelve
from marshal import loads
eval("1"); torch.load(x); torch.load(x, weights_only=True); np.load(x, allow_pickle=True)
KeyedVectors.load(x); AutoModel.from_pretrained(x); run(x, shell=True)
"""
    assert len(list(faults(ast.parse(program)))) == 10


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_BUNDLE, tmp_path / "bundle"))


def load_all(bundle: Bundle) -> None:
    load_text(bundle, "word2vec")
    load_drawing(bundle, torch.device("cpu"))
    load_captioner(bundle, torch.device("cpu"))


@at_once("name", DATA_FILES)
def test_a_file_that_was_changed_is_named(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    middle = len(content) // 2
    (bundle / name).write_bytes(
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    )
    with pytest.raises(InvalidBundle, match=name):
        open_bundle(bundle)
    (bundle / name).write_bytes(content)


def test_a_manifest_cannot_leave_out_a_digest_or_lead_elsewhere(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    for files in (
        {n: d for n, d in manifest["files"].items() if n != "words.bin"},
        manifest["files"] | {"../../../etc/passwd": "0" * 64},
        manifest["files"] | {"/etc/passwd": "0" * 64},
    ):
        (bundle / MANIFEST).write_text(json.dumps(manifest | {"files": files}))
        with pytest.raises(InvalidBundle):
            open_bundle(bundle)


@at_once("name", DATA_FILES)
def test_a_sealed_bundle_with_a_pickle_in_it_is_refused(
    bundle: Path, canary: Path, name: str
) -> None:
    """Who can seal a bundle can have anything in it but code."""
    form = "torch" if name.endswith(".safetensors") else "pickle"
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(payload(canary, form))
    with pytest.raises(InvalidBundle):
        load_all(seal(bundle, "evil", "scenes", {}, {}))
    (bundle / name).write_bytes(content)


def payload(canary: Path, form: str) -> bytes:
    if form == "pickle":
        return pickle.dumps(Payload(canary), protocol=2)  # as torch's own
    file = io.BytesIO()
    torch.save({"x": Payload(canary)}, file)
    return file.getvalue()


def test_a_bert_that_is_a_pickle_is_refused(bundle: Path, canary: Path) -> None:
    from tests.bert import make_bert

    folder = make_bert(bundle / "bert")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(payload(canary, "torch"))
    (bundle / "txt2img.json").write_text(json.dumps({"text": {"source": "bert"}}))
    with pytest.raises(InvalidBundle):
        load_text(seal(bundle, "evil", "scenes", {}, {}), "bert")


@at_once("form", ["pickle", "torch"])
def test_a_checkpoint_that_holds_code_is_refused(tmp_path: Path, canary: Path, form: str) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(payload(canary, form))
    with pytest.raises(CheckpointMismatch):
        Checkpoint(path, {}).restore([], [])


def test_a_pickle_on_the_model_hosts_socket_is_no_message(canary: Path) -> None:
    with pytest.raises(ValueError, match="extra data"):
        unpack(pickle.dumps(Payload(canary)))
    assert unpack(pack({"op": "info"})[4:]) == {"op": "info"}


@at_once(
    "kind",
    [
        "application/x-python-serialize",
        "application/x-yaml",
        "application/data",
        "application/json",
    ],
)
def test_a_message_with_a_pickle_for_a_body_is_refused(canary: Path, kind: str) -> None:
    message = json.loads(message_of(new_job_id(), Txt2ImgParams(prompt="a", seed=1)))
    message["content-type"] = kind
    message["body"] = base64.b64encode(pickle.dumps(((), Payload(canary), {}))).decode()
    with pytest.raises(InvalidMessage):
        parse_message(json.dumps(message).encode(), 1_000_000, {Task("txt2img").celery_name})


def test_a_sender_cannot_speak_for_celery() -> None:
    check_headers({"id": "1", "task": "t", "sentry-trace": "x", "chain": None, "retries": 1})
    check_embedded({"callbacks": None, "errbacks": None, "chain": None, "chord": None})
    check_embedded({})
    for name in (
        "callbacks",
        "errbacks",
        "chain",
        "chord",
        "is_eager",
        "called_directly",
        "as_execution_options",
        "_children",
        "hostname",
    ):
        with pytest.raises(InvalidMessage, match=name):
            check_headers({"id": "1", name: [{"task": "evil"}]})
        with pytest.raises(CrossmodalError, match=name):
            check_embedded({name: [{"task": "evil"}]})
