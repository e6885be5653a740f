"""Every model through the same few tests: it learns, it is saved and loaded, padding is nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence
from torchvision.models import get_model, resnet18

from crossmodal.datasets.scenes import Scenes
from crossmodal.errors import InvalidBundle, InvalidSetting
from crossmodal.networks.beam import Limits, search
from crossmodal.networks.captioner import Captioner, CaptionerConfig, load_pretrained
from crossmodal.networks.critic import Critic, critic_loss
from crossmodal.networks.drawing import DrawingConfig, build
from crossmodal.networks.picture_vae import PictureVAE, PictureVAEConfig
from crossmodal.networks.resnet import Depth, resnet_stages
from crossmodal.networks.scene_vae import (
    LOGIT,
    Choices,
    Plan,
    Posterior,
    SceneVAE,
    SceneVAEConfig,
    boxes_divergence,
    choose,
)
from crossmodal.networks.text_encoder import TextEncoderConfig, Whitening
from crossmodal.networks.weights import load_weights, save_model
from crossmodal.text.word2vec import train_vectors
from crossmodal.text.word_vectors import WordVectors
from crossmodal.training.batches import Source
from crossmodal.training.objectives import Deceiving, PictureObjective, SceneObjective
from tests.at_once import at_once

TEXT = TextEncoderConfig(word_dim=16, width=32, heads=4, layers=2)
DRAWING: dict[str, DrawingConfig] = {
    "scene": SceneVAEConfig(TEXT, side=64),
    "scene, mean of words": SceneVAEConfig(replace(TEXT, ordered=False), side=64),
    "picture": PictureVAEConfig(TEXT, side=32, grids=(2, 4), width=16),
    "picture, flat latent": PictureVAEConfig(TEXT, side=32, grids=(1,), width=16),
    "picture, odd sizes": PictureVAEConfig(TEXT, side=48, grids=(3, 5), width=16),
}
CAPTIONER = CaptionerConfig(words=("<end>", "a", "b", "c"), side=32, stages=2, width=32, dropout=0)
CAPTIONERS = {
    "lstm, three stages": replace(CAPTIONER, stages=3),
    "gru": replace(CAPTIONER, cell="gru"),
    "rnn": replace(CAPTIONER, cell="rnn"),
    "without attention": replace(CAPTIONER, attention=False),
    "resnet34, one stage": replace(CAPTIONER, depth=34, stages=1),
    "resnet50": replace(CAPTIONER, depth=50),
}

drawing = pytest.mark.parametrize("config", DRAWING.values(), ids=DRAWING.keys())
captioning = pytest.mark.parametrize("config", CAPTIONERS.values(), ids=CAPTIONERS.keys())


def words(batch: int, length: int = 7) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, length, TEXT.word_dim), torch.ones(batch, length, dtype=torch.bool)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small tensors: threads would mostly wait for one another


@drawing
def test_noise_decides_what_the_text_leaves_open(config: DrawingConfig) -> None:
    model = build(config).eval()
    text, keep = words(1)
    both = text.expand(2, -1, -1), keep.expand(2, -1)
    pictures = model.sample(*both, torch.randn(2, model.latent_dim))
    assert pictures.shape == (2, 3, config.side, config.side)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    assert not torch.equal(pictures[0], pictures[1])
    calm = model.sample(*both, torch.zeros(2, model.latent_dim))
    torch.testing.assert_close(calm[0], calm[1])


@drawing
def test_padding_changes_nothing(config: DrawingConfig) -> None:
    model = build(config).eval()
    text, keep = words(1)
    noise = torch.randn(1, model.latent_dim)
    longer = torch.cat([text, torch.randn(1, 5, TEXT.word_dim)], dim=1)
    kept = torch.cat([keep, torch.zeros(1, 5, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(
        model.sample(text, keep, noise), model.sample(longer, kept, noise), rtol=1e-4, atol=1e-4
    )


@drawing
def test_only_ordered_text_tells_who_is_left_of_whom(config: DrawingConfig) -> None:
    model = build(config).eval()
    text, keep = words(1)
    noise = torch.randn(1, model.latent_dim)
    if isinstance(model, SceneVAE):  # all of its slots are seen
        nn.init.constant_(model.planner.presence.bias, 9)
    same = torch.allclose(
        model.sample(text, keep, noise), model.sample(text.flip(1), keep, noise), atol=1e-5
    )
    assert same != config.text.ordered


@pytest.fixture(scope="module")
def source() -> WordVectors:
    texts = [t for t, _ in zip(Scenes().texts("train", 1), range(300), strict=False)]
    return train_vectors(texts, dim=TEXT.word_dim)


def objective_of(config: DrawingConfig, source: WordVectors) -> SceneObjective | PictureObjective:
    model = build(config)
    if isinstance(model, SceneVAE):
        return SceneObjective(model, source)
    return PictureObjective(model, source)


@drawing
def test_the_loss_falls_on_one_batch(config: DrawingConfig, source: WordVectors) -> None:
    objective = objective_of(config, source)
    batch = Source(Scenes(config.side), config.side, size=4, seed=1).batch(0)
    optimizer = torch.optim.Adam(objective.model.parameters(), 2e-3)
    losses = []
    for _ in range(15):
        loss, figures = objective.loss(batch, 0.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(figures["pixels"].item())
    assert np.mean(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize("kind", ["scene", "picture"])
def test_losses_are_numbers_in_bfloat16_too(kind: str, source: WordVectors) -> None:
    objective = objective_of(DRAWING[kind], source)
    game = Deceiving(objective, Critic(width=8))
    side = DRAWING[kind].side
    batch = Source(Scenes(side), side, size=2, seed=1).batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss, figures = game.loss(batch, 0.5)
        critic, _ = game.critic_loss(batch, 0.5)
    (loss + critic).backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss + critic)
    assert loss.dtype == critic.dtype == torch.float32
    assert "deception" in figures


def reconstructed(model: SceneVAE, count: int) -> tuple[Tensor, Plan, Posterior]:
    """Of noise, as if there were one thing in it."""
    there = torch.zeros(count, 3, dtype=torch.long)
    there[:, 0] = 1
    made = Choices(there == 1, there, there, there[:, 0])
    known = torch.full((count, 3, 3), 0.3)
    images = torch.rand(count, 3, 64, 64)
    return model.reconstruct(images, *words(count), made, known, there == 1)


def test_what_a_text_leaves_open_is_chosen_by_the_noise_alone() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.19, 0.01])).expand(4000, 4)
    noise = torch.randn(4000, 4, generator=torch.Generator().manual_seed(1))
    chosen = choose(logits, noise)
    assert torch.equal(chosen, choose(logits, noise))
    shares = torch.bincount(chosen, minlength=4) / 4000
    expected = torch.tensor([0.5, 0.3, 0.19, 0]) / 0.99  # the last one is too unlikely
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.03)


def test_without_noise_the_likeliest_is_chosen() -> None:
    assert choose(torch.tensor([[0.1, 0.3, 0.2]]), torch.zeros(1, 3)).tolist() == [1]


def test_an_object_has_one_color_of_the_palette_and_never_a_mixture() -> None:
    model = build(DRAWING["scene"]).eval()
    assert isinstance(model, SceneVAE)
    plan = model.planner(*words(1))
    there = torch.tensor([[True, False, False]])
    nn.init.normal_(model.palette, std=0.1)
    for color in range(3):
        some = torch.full((1, 3), color)
        made = Choices(there, torch.zeros_like(some), some, torch.tensor([4]))
        boxes = torch.tensor([[0.5, 0.5, 0.3] * 3])
        with torch.no_grad():
            model.templates.fill_(1.0)
            drawn = model.render(made, boxes, torch.zeros(1, 4), 64)
        wanted = torch.sigmoid(LOGIT * model.palette[color]).detach()
        torch.testing.assert_close(drawn[0, :, 32, 32], wanted, rtol=0, atol=1e-4)
    assert plan.color.shape == (1, 3, model.config.colors)


def test_places_are_known_to_full_precision_in_bfloat16_too() -> None:
    model = build(DRAWING["scene"])
    assert isinstance(model, SceneVAE)
    with torch.autocast("cpu", torch.bfloat16):
        drawn, plan, q = reconstructed(model, 2)
    for value in (drawn, plan.mean, plan.factor, plan.color, plan.shape, q.boxes, q.boxes_std):
        assert value.dtype == torch.float32


def test_the_critic_learns_to_tell_sharp_from_blurred() -> None:
    real = (
        torch.stack(
            [
                torch.from_numpy(Scenes(32).example("train", 1, i).image).permute(2, 0, 1)
                for i in range(8)
            ]
        ).float()
        / 255
    )
    blurred = nn.functional.avg_pool2d(real, 5, stride=1, padding=2)
    critic = Critic(width=16)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(60):
        loss = critic_loss(critic, real, blurred)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert critic(real).mean() > critic(blurred).mean() + 0.5


def test_the_divergence_is_that_of_torch() -> None:
    model = build(DRAWING["scene"]).eval()
    assert isinstance(model, SceneVAE)
    _, plan, q = reconstructed(model, 3)
    theirs = kl_divergence(
        MultivariateNormal(q.boxes, scale_tril=torch.diag_embed(q.boxes_std)),
        MultivariateNormal(plan.mean, scale_tril=plan.factor),
    )
    torch.testing.assert_close(boxes_divergence(q, plan), theirs, rtol=1e-3, atol=1e-3)


def test_a_posterior_that_is_the_prior_does_not_diverge() -> None:
    model = build(DRAWING["picture"]).eval()
    assert isinstance(model, PictureVAE)
    assert (model.reconstruct(torch.rand(2, 3, 32, 32), *words(2)).divergence > 0).all()
    for rung in model.rungs:
        for gaussian in (rung.get_submodule("prior.1"), rung.get_submodule("posterior.2")):
            for parameter in gaussian.parameters():
                nn.init.zeros_(parameter)
    drawing = model.reconstruct(torch.rand(2, 3, 32, 32), *words(2))
    torch.testing.assert_close(drawing.divergence, torch.zeros(2, 4))


def test_whitening_tells_opposites_apart() -> None:
    vectors = torch.randn(200, 16) @ torch.diag(torch.logspace(0, -1.5, 16)) + 5
    whitening = Whitening(16)
    whitening.fit(vectors)
    spread = torch.cov(whitening(vectors).T)
    torch.testing.assert_close(spread, torch.eye(16), rtol=0.1, atol=0.1)


@captioning
def test_the_captioner_overfits_one_batch_and_finds_it_by_search(config: CaptionerConfig) -> None:
    model = Captioner(replace(config, doubled=("b",)))
    images = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    captions = torch.tensor([[1, 2, 0], [3, 0, 0], [2, 2, 0], [1, 3, 0]])
    keep = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=torch.bool)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss, whole = model.loss(images, captions, keep)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if whole == 1 and loss < 0.01:
            break
    assert whole == 1
    for width in (1, 3):  # in training mode: a batch norm has seen this batch alone
        found = search(model, images, [Limits(width, max_words=5, count=1)] * 4)
        assert [h[0].words for h in found] == [(1, 2), (3,), (2, 2), (1, 3)]
        assert all(h[0].log_probability > -1 for h in found)


@captioning
def test_no_word_is_said_more_often_than_it_may_or_after_itself(config: CaptionerConfig) -> None:
    def said(most: tuple[int, ...], *doubled: str) -> list[tuple[int, ...]]:
        model = Captioner(replace(config, most=most, doubled=doubled)).eval()
        with torch.no_grad():
            model.decoder.out.get_parameter("1.weight").zero_()
            bias = torch.tensor([-9.0, 3, 2, 1])  # the end is the last resort
            model.decoder.out.get_parameter("1.bias").copy_(bias)
        images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
        return [h[0].words for h in search(model, images, [Limits(1, 7, 1)] * 2)]

    assert said(()) == [(1, 2, 1, 2, 1, 2, 1)] * 2
    assert said((1, 1, 2, 9)) == [(1, 2, 3, 2, 3)] * 2
    assert said((1, 1, 2, 9), "b") == [(1, 2, 2, 3)] * 2


@captioning
def test_pictures_of_one_batch_are_searched_by_their_own_limits(config: CaptionerConfig) -> None:
    model = Captioner(config).eval()
    images = torch.randint(0, 255, (6, 3, 32, 32), dtype=torch.uint8)
    limits = [
        Limits(w, m, c)
        for w, m, c in [(1, 5, 1), (4, 5, 4), (2, 1, 2), (4, 3, 1), (3, 12, 2), (2, 7, 1)]
    ]
    together = search(model, images, limits)
    for i, found in enumerate(together):
        [alone] = search(model, images[i : i + 1], limits[i : i + 1])
        assert [h.words for h in found] == [h.words for h in alone]
        assert len(found) == limits[i].count
        assert max(len(h.words) for h in found) <= limits[i].max_words


@captioning
def test_fusing_changes_nothing_but_speed(config: CaptionerConfig) -> None:
    model = Captioner(config)
    images = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    for _ in range(3):
        model.encoder(images)  # in training mode, so that the batch norms have something to say
    model.eval()
    with torch.inference_mode():
        before = model.encoder(images)
    model.encoder.fuse()
    with torch.inference_mode():
        torch.testing.assert_close(model.encoder(images), before, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.encoder.modules())


@pytest.mark.parametrize("kind", [*DRAWING, *CAPTIONERS])
def test_weights_survive_their_file(tmp_path: Path, kind: str) -> None:
    def made() -> nn.Module:
        return build(DRAWING[kind]) if kind in DRAWING else Captioner(CAPTIONERS[kind])

    model, other = made(), made()
    save_model(tmp_path, "m", model)
    load_weights(other, tmp_path, "m")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-3, atol=1e-3)


def test_weights_of_another_cell_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "m", Captioner(CAPTIONER))
    with pytest.raises(InvalidBundle, match=r"does not fit m\.json"):
        load_weights(Captioner(CAPTIONERS["gru"]), tmp_path, "m")


@at_once("depth", [18, 34, 50])
def test_our_resnet_computes_what_torchvisions_does(depth: Depth) -> None:
    theirs = get_model(f"resnet{depth}", weights=None).eval()
    stem = theirs.conv1, theirs.bn1, theirs.relu, theirs.maxpool
    stages = nn.Sequential(*stem, theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
    ours = resnet_stages(depth, 4).eval()
    ours.load_state_dict(stages.state_dict())
    pictures = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(pictures), stages(pictures))


def test_torchvisions_weights_are_taken_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    theirs = resnet18(weights=None)
    torch.save(theirs.state_dict(), cache / "resnet18-f37072fd.pth")
    model = Captioner(CAPTIONER)
    load_pretrained(model)
    first = model.encoder.convs[0]
    assert torch.equal(first.get_parameter("weight"), theirs.conv1.weight)


def test_weights_that_cannot_be_had_are_said_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody answers there
    with pytest.raises(InvalidSetting, match=r"--pretrained.*resnet18-f37072fd\.pth"):
        load_pretrained(Captioner(CAPTIONER))
