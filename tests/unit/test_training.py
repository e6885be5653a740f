"""Training, in a few steps: that it runs, learns, and leaves a bundle that can be served."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from crossmodal.models.bundle import open_bundle
from crossmodal.models.captioner import Captioner, CaptionerConfig
from crossmodal.models.vae import SceneVAE, VAEConfig, boxes_divergence
from crossmodal.training.loop import Budget, Schedule, TrainingDiverged, fit


def train(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "crossmodal.cli", "train", *args],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_all_stages_leave_a_bundle_that_opens(tmp_path: Path) -> None:
    done = train("all", "--out", str(tmp_path), "--steps", "2", "--judged", "4", "--json")
    assert done.returncode == 0, done.stderr
    bundle = open_bundle(tmp_path)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"] == bundle.version
    assert set(bundle.manifest.quality["txt2img"]["seen"]) >= {"objects", "relations"}
    assert [len(bundle.manifest.training[s]) for s in ("word2vec", "txt2img", "img2txt")] == [1] * 3
    for stage in ("txt2img", "img2txt"):
        lines = (tmp_path / f"{stage}.log.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == 2


@pytest.mark.parametrize(
    "args",
    [("nonsense", "--steps", "1"), ("all",), ("all", "--steps", "1", "--dataset", "mnist"),
     ("txt2img", "--steps", "1")],
)  # fmt: skip
def test_bad_usage_is_said_before_anything_is_trained(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    done = train(*args, "--out", str(tmp_path))
    assert (done.returncode, "error" in done.stderr) == (2, True)


def line() -> Iterator[Tensor]:
    while True:
        yield torch.randn(16, 1)


def test_the_loop_learns_a_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)

    def loss_of(x: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        return (model(x) - 3 * x - 1).square().mean(), {}

    schedule = Schedule(rate=0.1, warmup=1, decay=0.0)
    reports: list[float] = []
    fit(model, line(), loss_of, Budget(steps=300), schedule, tmp_path / "log",
        lambda done, _: reports.append(done))  # fmt: skip
    assert model.weight.item() == pytest.approx(3, abs=0.05)
    assert model.bias.item() == pytest.approx(1, abs=0.05)
    assert reports[-1] == 1


def test_a_loss_that_is_no_number_changes_no_weight(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    before = model.weight.item()

    def loss_of(x: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        return model(x).mean() * float("nan"), {}

    with pytest.raises(TrainingDiverged, match="nan"):
        fit(model, line(), loss_of, Budget(steps=3), Schedule(), tmp_path / "log", lambda *_: None)
    assert model.weight.item() == before


def words(batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 7, 64), torch.ones(batch, 7, dtype=torch.bool)


def test_the_vae_draws_what_its_decoder_is_told() -> None:
    model = SceneVAE(VAEConfig()).eval()
    pictures = model.sample(*words(2), torch.randn(2, model.latent_dim))
    assert pictures.shape == (2, 3, 128, 128)
    assert 0 <= pictures.min() <= pictures.max() <= 1


def test_the_divergence_is_that_of_torch() -> None:
    from torch.distributions import MultivariateNormal, kl_divergence

    torch.manual_seed(0)
    model = SceneVAE(VAEConfig()).eval()
    _, plan, q = model.reconstruct(torch.rand(3, 3, 64, 64), *words(3))
    ours = boxes_divergence(q, plan)
    theirs = kl_divergence(
        MultivariateNormal(q.boxes, scale_tril=torch.diag_embed(q.boxes_std)),
        MultivariateNormal(plan.mean, scale_tril=plan.factor),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = SceneVAE(VAEConfig()).eval()
    text, keep = words(1)
    noise = torch.randn(1, model.latent_dim)
    longer = torch.cat([text, torch.randn(1, 5, 64)], dim=1)
    kept = torch.cat([keep, torch.zeros(1, 5, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(
        model.sample(text, keep, noise), model.sample(longer, kept, noise), rtol=1e-4, atol=1e-4
    )


def test_the_captioner_overfits_one_batch() -> None:
    torch.manual_seed(0)
    model = Captioner(CaptionerConfig(words=("<end>", "a", "b", "c"), side=32, width=32))
    images = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    captions = torch.tensor([[1, 2, 0], [3, 0, 0], [2, 2, 0], [1, 3, 0]])
    keep = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=torch.bool)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        loss, whole = model.loss(images, captions, keep)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if whole == 1:
            break
    assert whole == 1
