"""`crossmodal models pull`: what is fetched of a repository, what is refused, what is kept."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import InvalidModel, InvalidSetting
from crossmodal.models.catalog import open_folder
from crossmodal.processes import wait_until
from tests.fakes.hub import COMMIT, FakeHub, files_of, serving, sha256
from worker.hub.choice import needed
from worker.hub.repository import HubFile, Repository

SD: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.0",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
}
UNET, VAE = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
PLAIN = {f"{UNET}.safetensors", f"{VAE}.safetensors"}
SETTINGS = {
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
}
BLIP = {"config.json", "preprocessor_config.json", "vocab.txt"}


def chosen(told: dict[str, Any], *names: str, variant: str = "") -> set[str]:
    files = tuple(HubFile(name, 1, git_id="0") for name in names)
    return {file.name for file in needed(Repository("somebody/tiny", COMMIT, files), told, variant)}


def test_of_a_pipeline_only_what_its_index_names_is_taken() -> None:
    needless = {
        "v1-5-pruned.safetensors",
        "model.safetensors",
        "safety_checker/model.safetensors",
        f"{UNET}.bin",
        f"{UNET}.non_ema.safetensors",
        "unet/flax_model.msgpack",
        "unet/model.onnx",
        "unet/pytorch_model.bin.index.json",
        "unet/LICENSE",
        "unet/deep/config.json",
        "unet/lora.safetensors",
        "vae/convert.py",
        "pipeline.py",
        ".gitattributes",
        "sample.png",
        "crossmodal.toml",
        "bundle.json",
        "feature_extractor/preprocessor_config.json",
    }
    about = {"README.md", "LICENSE", "LICENSE.txt"}
    assert chosen(SD, *SETTINGS, *PLAIN, *about, *needless) == SETTINGS | PLAIN | about


def test_of_a_captioner_only_what_lies_at_the_top_is_taken() -> None:
    taken = {*BLIP, "model.safetensors", "README.md", "chat_template.jinja", "spiece.model"}
    needless = {
        "pytorch_model.bin",
        "tf_model.h5",
        "onnx/model.onnx",
        "original/model.safetensors",
        "modeling.py",
        "training_args.bin",
        "bundle.json",
    }
    assert chosen({"model_type": "blip"}, *taken, *needless) == taken


@pytest.mark.parametrize(
    "fp16",
    [
        ("{}.fp16.safetensors",),
        (
            "{}.fp16-00001-of-00002.safetensors",
            "{}.fp16-00002-of-00002.safetensors",
            "{}.safetensors.index.fp16.json",
        ),
        (
            "{}-00001-of-00002.fp16.safetensors",
            "{}-00002-of-00002.fp16.safetensors",
            "{}.safetensors.index.fp16.json",
        ),
    ],
)
def test_weights_are_of_one_variant(fp16: tuple[str, ...]) -> None:
    of_variant = {name.format(part) for name in fp16 for part in (UNET, VAE)}
    plain = PLAIN | {f"{UNET}.safetensors.index.json"}
    both = {*SETTINGS, *plain, *of_variant}
    assert chosen(SD, *both) == SETTINGS | plain
    assert chosen(SD, *both, variant="fp16") == SETTINGS | of_variant


def test_a_part_that_has_not_the_variant_is_taken_as_it_is() -> None:
    mixed = {f"{UNET}.fp16.safetensors", f"{VAE}.safetensors"}
    assert chosen(SD, *SETTINGS, *mixed, variant="fp16") == SETTINGS | mixed


WEIGHTS_OF_FP16 = (*SETTINGS, f"{UNET}.fp16.safetensors", f"{VAE}.fp16.safetensors")
CUSTOM_UNET = SD | {"unet": ["my_unet", "MyUNet"]}


@pytest.mark.parametrize(
    ("told", "names", "variant", "says"),
    [
        (SD, (*SETTINGS, *PLAIN), "fp16", "no weights of the variant fp16: it has no variants"),
        (SD, WEIGHTS_OF_FP16, "bf16", "no weights of the variant bf16: there are fp16|only of"),
        (SD, WEIGHTS_OF_FP16, "", r"tiny: (unet|vae) has weights only of .*: give --variant fp16"),
        (SD, (*SETTINGS, f"{UNET}.bin", f"{VAE}.safetensors"), "", r"unet has weights only in d"),
        (SD, SETTINGS, "", r"no weights in \*\.safetensors"),
        (
            SD | {"_class_name": ["mine", "Mine"]},
            SETTINGS,
            "",
            "needs code from its own repository",
        ),
        (CUSTOM_UNET, (*SETTINGS, "unet/my_unet.py"), "", r"needs code .* \(unet in"),
        ({}, BLIP - {"config.json"}, "", r"neither model_index\.json nor config\.json"),
        (
            {"auto_map": {"AutoModel": "x.Y"}},
            BLIP,
            "",
            r"needs code .*\(auto_map in config\.json\)",
        ),
        ({}, (*BLIP, "pytorch_model.bin"), "", r"only in pytorch_model\.bin, which is never read"),
        ({}, (*BLIP, "../../.bashrc.json"), "", r"'\.\./\.\./\.bashrc\.json': nothing"),
        ({}, (*BLIP, "/etc/x.json"), "", "'/etc/x.json': nothing is fetched"),
        ({}, (*BLIP, "a\nb.json"), "", "unsafe name"),
    ],
)
def test_what_could_not_be_served_is_refused(
    told: dict[str, Any], names: tuple[str, ...], variant: str, says: str
) -> None:
    with pytest.raises(InvalidModel, match=says):
        chosen(told, *names, variant=variant)


def test_a_captioner_has_no_variants() -> None:
    with pytest.raises(InvalidSetting, match="only diffusers pipelines have variants"):
        chosen({}, *BLIP, "model.safetensors", variant="fp16")


def tiny_captioner() -> dict[str, bytes]:
    """In which there is nothing but bytes."""
    return {
        "config.json": b'{"model_type": "blip"}',
        "vocab.txt": b"a\nb\n",
        "README.md": b"# tiny\n",
        "model.safetensors": bytes(range(256)) * 12_000,
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"raise SystemExit",
    }


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub(tiny_captioner())) as hub:
        yield hub


Pull = Callable[..., "subprocess.CompletedProcess[str]"]


def listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def environment(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    return clean | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "CROSSMODAL_MODELS": str(tmp_path / "models"),
    }


def command(*args: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "crossmodal.cli", "models", "pull", *args]


@pytest.fixture
def pull(hub: FakeHub, tmp_path: Path) -> Pull:
    """The command, in a process of its own: `huggingface_hub` reads its environment only once."""

    def run(
        *args: str, repo: str = "somebody/tiny", check: bool = False, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        whole = environment(hub, tmp_path) | env
        how = () if check else ("--no-check",)
        return subprocess.run(command(repo, *args, *how), env=whole, capture_output=True, text=True)

    return run


def test_a_folder_is_fetched_whole_with_where_it_came_from(
    hub: FakeHub, pull: Pull, tmp_path: Path
) -> None:
    done = pull()
    folder = tmp_path / "models" / "tiny"
    assert (done.returncode, listed(folder.parent)) == (0, {"tiny"}), done.stderr
    kept = {"config.json", "vocab.txt", "README.md", "model.safetensors"}
    assert set(files_of(folder)) == kept | {"crossmodal-source.json"}
    assert hub.names() == kept
    assert json.loads((folder / "crossmodal-source.json").read_text()) == {
        "repository": "somebody/tiny",
        "commit": COMMIT,
        "variant": None,
        "files": {
            name: {"size": len(hub.files[name]), "sha256": sha256(hub.files[name])} for name in kept
        },
    }
    assert open_folder(folder).kinds == ("img2txt",)
    assert f"CROSSMODAL_MODELS={folder.parent} crossmodal up" in done.stdout


@pytest.mark.slow
def test_with_json_there_is_one_document(pull: Pull, tmp_path: Path) -> None:
    done = pull("--json", "--to", str(tmp_path / "here"))
    told = json.loads(done.stdout)
    assert (told["folder"], told["commit"], told["files"], told["models"]) == (
        str(tmp_path / "here"),
        COMMIT,
        4,
        None,
    )
    assert "note" in json.loads(done.stderr)


@pytest.mark.slow
def test_what_is_there_already_is_not_fetched_again(
    hub: FakeHub, pull: Pull, tmp_path: Path
) -> None:
    pull()
    hub.asked.clear()
    again = pull(repo=f"somebody/tiny@{COMMIT}")
    assert (again.returncode, "already has all files" in again.stderr) == (0, True)
    assert hub.asked == []
    hub.commit = "b" * 40
    newer = pull()
    assert (newer.returncode, "remove it, or pass another folder" in newer.stderr) == (2, True)
    assert pull("--to", str(tmp_path / "newer")).returncode == 0


@pytest.mark.slow
def test_a_folder_of_something_else_is_left_alone(pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    done = pull()
    assert (done.returncode, "invalid_setting" in done.stderr) == (2, True)
    assert listed(tmp_path / "models" / "tiny") == set()


@pytest.mark.slow
def test_where_the_folder_is_to_be_must_be_said(pull: Pull, hub: FakeHub) -> None:
    env = {k: v for k, v in environment(hub, Path("/none")).items() if k != "CROSSMODAL_MODELS"}
    done = subprocess.run(command("somebody/tiny"), env=env, capture_output=True, text=True)
    assert (done.returncode, "pass --to FOLDER, or set CROSSMODAL_MODELS" in done.stderr) == (
        2,
        True,
    )


def has_begun(tmp_path: Path) -> bool:
    """Whether there comes a time when a part of the weights is there."""
    part = tmp_path / "models" / ".tiny.part"
    return wait_until(
        lambda: any(p.stat().st_size >= 1_000_000 for p in part.glob("model*.incomplete")), 30
    )


def test_a_file_that_breaks_off_goes_on_where_it_was(
    hub: FakeHub, pull: Pull, tmp_path: Path
) -> None:
    hub.cuts["model.safetensors"] = [2_000_000]
    assert pull().returncode == 0
    ranges = [asked for name, asked in hub.asked if name == "model.safetensors"]
    assert ranges[0] == ""
    assert 0 < int(ranges[1].removeprefix("bytes=").rstrip("-")) <= 2_000_000
    assert open_folder(tmp_path / "models" / "tiny")


@pytest.mark.slow
def test_a_hub_without_ranges_sends_all_of_it_again(
    hub: FakeHub, pull: Pull, tmp_path: Path
) -> None:
    hub.cuts["model.safetensors"] = [2_000_000]
    hub.is_simple = True
    assert pull().returncode == 0
    found = (tmp_path / "models" / "tiny" / "model.safetensors").read_bytes()
    assert found == hub.files["model.safetensors"]


@pytest.mark.slow
def test_a_process_that_is_killed_is_gone_on_with(hub: FakeHub, pull: Pull, tmp_path: Path) -> None:
    hub.stalls.add("model.safetensors")
    process = subprocess.Popen(
        command("somebody/tiny", "--no-check"),
        env=environment(hub, tmp_path),
        stderr=subprocess.DEVNULL,
    )
    assert has_begun(tmp_path)
    process.kill()
    process.wait()
    assert listed(tmp_path / "models") == {".tiny.part"}
    hub.stalls.clear()
    hub.asked.clear()
    hub.commit = "b" * 40  # its files are the same: what has come counts
    assert pull().returncode == 0
    assert [name for name, _ in hub.asked] == ["config.json", "model.safetensors"]
    assert int(hub.asked[1][1].removeprefix("bytes=").rstrip("-")) >= 1_000_000
    assert listed(tmp_path / "models") == {"tiny"}
    assert not list((tmp_path / "models" / "tiny").glob("*.incomplete"))


@pytest.mark.slow
def test_ctrl_c_keeps_what_has_come(hub: FakeHub, tmp_path: Path) -> None:
    hub.stalls.add("model.safetensors")
    process = subprocess.Popen(
        command("somebody/tiny", "--no-check"),
        env=environment(hub, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert has_begun(tmp_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, "error interrupted what was fetched is kept in" in said) == (
        130,
        True,
    ), said


@pytest.mark.slow
def test_two_do_not_fetch_into_one_folder(hub: FakeHub, pull: Pull, tmp_path: Path) -> None:
    hub.stalls.add("model.safetensors")
    first = subprocess.Popen(
        command("somebody/tiny", "--no-check"),
        env=environment(hub, tmp_path),
        stderr=subprocess.DEVNULL,
    )
    try:
        assert has_begun(tmp_path)
        second = pull()
    finally:
        first.kill()
        first.wait()
    assert (second.returncode, "another process is fetching" in second.stderr) == (2, True)


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt"])
def test_a_file_of_another_digest_is_deleted(
    hub: FakeHub, pull: Pull, tmp_path: Path, name: str
) -> None:
    hub.damaged.add(name)
    done = pull()
    assert (done.returncode, f"model_damaged {name} of somebody/tiny" in done.stderr) == (1, True)
    left = files_of(tmp_path / "models")
    assert not [path for path in left if name in path or not path.startswith(".tiny.part/")]
    hub.damaged.clear()
    assert pull().returncode == 0


@pytest.mark.slow
def test_a_file_that_is_longer_than_said_is_not_read_on(hub: FakeHub, pull: Pull) -> None:
    hub.sizes = {"model.safetensors": 1_000}
    done = pull()
    assert (done.returncode, "is longer than the hub reports" in done.stderr) == (1, True)


def test_a_full_disk_is_said_before_anything_is_fetched(
    hub: FakeHub, pull: Pull, tmp_path: Path
) -> None:
    hub.sizes = {"model.safetensors": 10**18}
    done = pull()
    assert done.stderr.startswith("error output_not_writable somebody/tiny needs 1.0 EB more")
    assert (hub.names(), listed(tmp_path / "models")) == ({"config.json"}, set())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "env", "code", "says"),
    [
        ({"repo": "somebody/else"}, {}, "repository_not_found", "set HF_TOKEN"),
        ({"token": "secret"}, {}, "repository_not_found", "or set HF_TOKEN if it is private"),
        ({"token": "secret"}, {"HF_TOKEN": "x"}, "repository_not_found", "set another HF_TOKEN"),
        ({"refusal": (403, "GatedRepo")}, {}, "model_hub_refused", "is gated: accept its terms"),
        ({"refusal": (403, "")}, {}, "model_hub_refused", "(status 403): set HF_TOKEN"),
        ({"refusal": (503, "")}, {}, "model_hub_unavailable", "(status 503): try again later"),
        ({"refusal": (418, "")}, {}, "model_hub_error", "status 418"),
        ({}, {"HF_HUB_OFFLINE": "1"}, "invalid_setting", "HF_HUB_OFFLINE is set"),
        ({}, {"HF_ENDPOINT": "nonsense"}, "invalid_setting", "is not the URL of a hub"),
        ({"files": {"config.json": b"[]"}}, {}, "model_invalid", "is not a JSON object"),
        ({"files": {"config.json": b"{"}}, {}, "model_invalid", "is not JSON"),
        ({"commit": ""}, {}, "model_hub_error", "does not report the commit"),
    ],
)
def test_what_a_hub_refuses_is_said_with_a_code(
    hub: FakeHub,
    pull: Pull,
    tmp_path: Path,
    changes: dict[str, Any],
    env: dict[str, str],
    code: str,
    says: str,
) -> None:
    for name, value in changes.items():
        setattr(hub, name, value)
    done = pull(**env)
    assert done.stderr.startswith(f"error {code} "), done.stderr
    assert (says in done.stderr, done.stderr.count("\n")) == (True, 1), done.stderr
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_a_token_opens_what_is_not_public(hub: FakeHub, pull: Pull) -> None:
    hub.token = "secret"
    assert pull(HF_TOKEN="secret").returncode == 0


@pytest.mark.slow
def test_a_revision_that_is_not_there_is_said(pull: Pull) -> None:
    done = pull(repo="somebody/tiny@v9")
    assert "repository_not_found somebody/tiny has no revision 'v9'" in done.stderr


@pytest.mark.slow
def test_a_name_that_is_none_is_bad_usage(pull: Pull) -> None:
    done = pull(repo="some/body/tiny")
    assert (done.returncode, "is not the name of a repository" in done.stderr) == (2, True)


@pytest.mark.slow
def test_a_hub_that_is_away_may_be_there_later(pull: Pull) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = pull("--json", HF_ENDPOINT=url)
    error = json.loads(done.stderr)
    assert (error["code"], error["retryable"]) == ("model_hub_unavailable", True)
    assert f"the hub at {url} does not answer: Connection refused." in error["message"]


@pytest.mark.slow
def test_a_server_that_is_no_hub_is_said(hub: FakeHub, pull: Pull) -> None:
    hub.is_hub = False
    assert "model_hub_error the server at" in pull().stderr


@pytest.mark.slow
def test_a_pipeline_that_was_fetched_draws(hub: FakeHub, pull: Pull, tmp_path: Path) -> None:
    from tests.tiny import pipelines

    hub.files = files_of(pipelines.make("sd", tmp_path / "made"))
    hub.files |= {f"{UNET}.bin": b"pickle", "pipeline.py": b"raise SystemExit"}
    done = pull("--json", "--device", "cpu", check=True)
    assert done.returncode == 0, done.stderr
    [model] = json.loads(done.stdout)["models"]
    assert (model["kind"], model["repeats_alone"]) == ("txt2img", True)
    assert not [name for name in hub.names() if name.endswith((".py", ".bin"))]


@pytest.mark.slow
def test_a_variant_is_served_as_such(hub: FakeHub, pull: Pull, tmp_path: Path) -> None:
    from tests.tiny import pipelines

    made = files_of(pipelines.make("sd", tmp_path / "made"))
    hub.files = {name.replace(".safetensors", ".fp16.safetensors"): d for name, d in made.items()}
    done = pull("--json", "--variant", "fp16", "--device", "cpu", check=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "tiny"
    assert open_folder(folder).config.variant == "fp16"
    assert (folder / f"{UNET}.fp16.safetensors").is_file()


@pytest.mark.slow
def test_a_captioner_that_was_fetched_describes(hub: FakeHub, pull: Pull, tmp_path: Path) -> None:
    from tests.tiny import captioners

    hub.files = files_of(captioners.make("blip", tmp_path / "made"))
    done = pull("--json", "--device", "cpu", check=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["kind"] == "img2txt"


@pytest.mark.slow
def test_a_folder_that_cannot_be_loaded_is_said(pull: Pull) -> None:
    done = pull("--device", "cpu", check=True)
    assert (done.returncode, "error model_invalid" in done.stderr) == (1, True)
