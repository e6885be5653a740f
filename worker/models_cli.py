"""`crossmodal models`: lists, shows, checks and pulls models."""

import json
import re
import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from crossmodal.console import Json, errors_to_exit_status, print_json, print_table, say
from crossmodal.errors import InvalidModel, InvalidSetting, JobFailed, ModelNotFound
from crossmodal.extras import require
from crossmodal.jobs.models import KnownModels, Models
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.vocabulary import Vocabulary
from crossmodal.kinds.schema import properties_of
from crossmodal.models.catalog import open_folder
from crossmodal.models.vocabulary import vocabulary_of
from crossmodal.processes import python_module
from crossmodal.settings import load_settings
from worker.devices import parse_devices
from worker.hub.pull import Pulled, pull

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Models: list those that workers have, and show, check or pull a folder.",
)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER")]
Device = Annotated[str, typer.Option(help="auto, cpu, or a GPU such as cuda:0.")]


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List all models that workers have reported, and which of them are loaded."""
    with errors_to_exit_status(), Runner(settings := load_settings(), what="cli") as runner:
        known = runner.run(Models(settings).known())
        if as_json:
            print_json(
                [
                    known[name].model_dump(mode="json") | {"state": known.state(name)}
                    for name in known
                ]
            )
            return
        columns = ("model", "serves", "state", "a run (s)", "memory (GB)", "in a batch", "aliases")
        print_table(columns, [_summary(known, name) for name in known], "no model is known")


@app.command()
def forget(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Remove a model from the list when its folder is gone."""
    with errors_to_exit_status(), Runner(settings := load_settings(), what="cli") as runner:
        if not runner.run(Models(settings).forget(name)):
            raise ModelNotFound(f"no model named {name!r} is on the list")
        say(f"forgot {name}")


def _summary(known: KnownModels, name: str) -> tuple[Any, ...]:
    model = known[name]
    kinds = [kind + " (default)" * (kind in model.default_for) for kind in model.kinds]
    runs = [f"{one.run_s:g}" for one in model.kinds.values() if one.run_s is not None]
    batches = [str(one.max_batch) for one in model.kinds.values() if one.max_batch is not None]
    memory = "" if model.peak_bytes is None else f"{model.peak_bytes / 1e9:.2f}"
    return (
        name,
        ", ".join(kinds),
        str(known.state(name)),
        ", ".join(runs),
        memory,
        ", ".join(batches),
        ", ".join(model.aliases),
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER")], as_json: Json = False
) -> None:
    """Show what a folder holds, by its files alone, or what workers have reported of a model.

    If a model knows only some words, list them all: first those that name what it can draw.
    """
    with errors_to_exit_status():
        if Path(name).is_dir():
            _show_folder(Path(name), as_json)
        else:
            _show_known(name, as_json)


def _show_known(name: str, as_json: bool) -> None:
    with Runner(settings := load_settings(), what="cli") as runner:
        models = Models(settings)
        known = runner.run(models.known())
        if name not in known:
            raise ModelNotFound(
                f"there is no folder {name!r}, and no model of that name; known models: "
                f"{', '.join(known) or 'none'}"
            )
        model = runner.run(models.with_words(known[name]))
    failure = known.failure(name)
    told = {
        "state": known.state(name),
        "version": model.version,
        "format": model.format,
        "description": model.description,
        "aliases": ", ".join(model.aliases),
        "loaded in": "" if model.load_s is None else f"{model.load_s:g} s",
        "broken": failure.message if failure else "",
    }
    if as_json:
        print_json(
            model.model_dump(mode="json")
            | {"state": told["state"], "failure": failure and failure.model_dump()}
        )
        return
    print_table(("", ""), [(what, text) for what, text in told.items() if text])
    for kind, served in model.kinds.items():
        params = [(n, _shown(one)) for n, one in properties_of(served.params).items()]
        print_table((f"param of {kind}", ""), params, f"{kind}: params are known once it is loaded")
    _print_words(model.vocabulary)


def _show_folder(folder: Path, as_json: bool) -> None:
    found = open_folder(folder, load_settings().allowed_model_code)
    told = {
        "name": found.name,
        "format": found.format,
        "serves": ", ".join(found.kinds),
        "version": found.version,
        "folder": str(found.folder),
        "description": found.config.description,
    }
    words = vocabulary_of(found)
    if as_json:
        listed = None if words is None else words.model_dump(mode="json")
        print_json(told | {"serves": list(found.kinds), "vocabulary": listed})
        return
    print_table(("", ""), list(told.items()))
    _print_words(words)


def _print_words(known: Vocabulary | None) -> None:
    """Print the words that a model knows, if these are only some."""
    if known is None:
        return
    groups = {"objects": known.objects, "other words" if known.objects else "all": known.words}
    rows = [(what, ", ".join(words)) for what, words in groups.items() if words]
    left = known.count - len(known.objects) - len(known.words)
    rows += [("…", f"{left} more")] if left else []
    print_table((f"{known.count} words", ""), rows)


@app.command()
def check(
    folder: Folder,
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE.png", help="Write a sample.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Load a folder's models in a separate process, run them, and report what they need."""
    with errors_to_exit_status():
        open_folder(folder, load_settings().allowed_model_code)
        [first, *_] = parse_devices(device)
        found = _tried(folder, first.torch_name, out)
        if as_json:
            print_json(found)
            return
        for one in found:
            print_table(("", ""), _rows(one))


@app.command("pull")
def pull_model(
    repository: Annotated[
        str, typer.Argument(metavar="REPO[@REVISION]", help="Name on the hub: OWNER/NAME.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The folder to create.",
            show_default="one of the repository's name, in CROSSMODAL_MODELS",
        ),
    ] = None,
    variant: Annotated[
        str, typer.Option(metavar="NAME", help="Variant of the weights, such as fp16.")
    ] = "",
    device: Device = "auto",
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Only fetch it: do not load and run it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch a diffusers or transformers model from a hub, and check it.

    HF_ENDPOINT and HF_TOKEN apply as usual. Only weights in *.safetensors are fetched, and no
    code. An interrupted download resumes when the command runs again.
    """
    with errors_to_exit_status():
        name, _, revision = repository.partition("@")
        folder = _target(name, to)
        if not re.fullmatch(r"\w{0,32}", variant):
            raise InvalidSetting(
                f"--variant {variant!r} is not the name of a variant, such as fp16"
            )
        [first, *_] = parse_devices(device)
        require("hf", "`crossmodal models pull`")
        found = pull(name, revision or None, folder, variant)
        if not as_json:
            print_table(("", ""), _origin(found))
        checked = None if no_check else _tried(folder, first.torch_name, None)
        if as_json:
            print_json(asdict(found) | {"folder": str(found.folder), "models": checked})
            return
        for one in checked or ():
            print_table(("", ""), _rows(one))
        where = shlex.quote(str(found.folder.resolve().parent))
        say(f"serve it with: CROSSMODAL_MODELS={where} crossmodal up")


def _target(name: str, to: Path | None) -> Path:
    """Return the folder to make. Raises `InvalidSetting` if neither option nor setting gives it."""
    if to is not None:
        return to.absolute()
    if (models := load_settings().models) is None:
        raise InvalidSetting(
            "no target folder is given: pass --to FOLDER, or set CROSSMODAL_MODELS to the folder "
            "that contains all models"
        )
    return models.absolute() / name.rpartition("/")[2]


def _origin(found: Pulled) -> list[tuple[str, Any]]:
    return [
        ("repository", found.repository),
        ("commit", found.commit),
        ("folder", str(found.folder)),
        ("files", f"{found.files}, {decimal(found.size)}"),
    ]


def _tried(folder: Path, device: str, out: Path | None) -> list[dict[str, Any]]:
    """Return the check process's findings. Raises its error, or `InvalidModel` if it died."""
    options = [str(folder), device, *([str(out)] if out else [])]
    done = subprocess.run(
        python_module("worker.host.check", *options), stdout=subprocess.PIPE, text=True, check=False
    )
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as e:
        raise InvalidModel(
            f"the process that checked {folder} ended with status {done.returncode} and no "
            "output: it may have run out of memory"
        ) from e
    if "error" in found:
        error = found["error"]
        raise JobFailed(error["message"], error["code"], error["retryable"])
    made: list[dict[str, Any]] = found
    return made


def _rows(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the table rows of one model."""
    yes = {True: "yes", False: "no"}
    step = found["step_s"]
    rows = [
        ("serves", found["kind"]),
        ("loaded in", f"{found['load_s']:g} s, warm {found['warmup_s']:g} s later"),
        ("a run", f"{found['run_s']:g} s" + (f", {step:g} s a step" if step else "")),
        ("max memory", f"{found['peak_bytes'] / 1e9:.2f} GB"),
        ("max batch", found["max_batch"] or "as the settings allow"),
        ("same seed, same bytes", yes[found["repeats_alone"]]),
        ("... also in a batch", yes[found["repeats_in_a_batch"]]),
    ]
    rows += [("a caption", text) for text in found["captions"]]
    rows += [("wrote", found["written"])] if found["written"] else []
    return rows + [(f"param {n}", _shown(one)) for n, one in found["schema"]["properties"].items()]


def _shown(schema: dict[str, Any]) -> str:
    """Return a param's default and limits as text."""
    parts = [f"{schema['default']}"] if schema.get("default") is not None else []
    parts += [
        f"{word} {schema[name]:g}"
        for name, word in (("minimum", "from"), ("maximum", "to"), ("multipleOf", "in steps of"))
        if name in schema
    ]
    return ", ".join(parts) or "–"
