"""The gradient of score distillation against its equations, one prediction at a time."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from headstudio.errors import HeadStudioError
from headstudio.guidance import DiffusionPrior, DistillationConfig, ScoreDistillation
from tests.fixtures.tiny_prior import IMAGE_SIZE, LATENT_SIZE

B = 5
STEPS = torch.tensor([30, 199, 200, 640, 979])  # two below the threshold, three not
VISIBLE = torch.tensor([1.0, 0.0, 1.0, 0.5, 0.0])


class Case:
    """Everything one step of distillation is given."""

    def __init__(self, prior: DiffusionPrior) -> None:
        generator = torch.Generator().manual_seed(0)
        self.prior = prior
        self.rgb = torch.rand(B, 20, 20, 3, generator=generator)
        self.latents = torch.randn(B, 4, LATENT_SIZE, LATENT_SIZE, generator=generator)
        self.noise = torch.randn(self.latents.shape, generator=generator)
        self.control = torch.rand(B, IMAGE_SIZE, IMAGE_SIZE, 3, generator=generator)
        self.text = prior.embed_text([f"a woman, view {i}" for i in range(B)])
        self.negative = prior.embed_text(["ugly"]).expand(B, -1, -1)

    def gradient(self, config: DistillationConfig, control: bool = True, **changes):
        arguments = {
            "latents": self.latents,
            "steps": STEPS,
            "text": self.text,
            "negative": self.negative,
            "control": self.control if control else None,
            "visible": VISIBLE,
            "noise": self.noise,
        }
        return ScoreDistillation(self.prior, config).gradient(**(arguments | changes))

    def slow_gradient(self, config: DistillationConfig, control: bool = True) -> torch.Tensor:
        """method.md's equations, sample by sample, every prediction by itself."""
        prior, rows = self.prior, []
        for i in range(B):
            abar = prior.alphas_cumprod[STEPS[i]]
            z = abar.sqrt() * self.latents[i] + (1 - abar).sqrt() * self.noise[i]

            def epsilon(embedding, i=i, z=z):
                picture = self.control[i][None] if control else None
                weight = config.control_weight * float(VISIBLE[i])
                return prior.predict_noise(
                    z[None], STEPS[i][None], embedding[None], picture, weight
                )[0]

            e_text = epsilon(self.text[i])
            e_negative = epsilon(self.negative[i])
            e_null = epsilon(prior.null_embedding[0])
            delta_c = config.guidance_scale * (e_text - e_null)
            if config.method == "sds":
                total = e_null + delta_c - self.noise[i]
            elif STEPS[i] < config.null_threshold:
                total = delta_c + e_null
            else:
                total = delta_c + e_null - e_negative
            rows.append((1 - abar) * total)
        return torch.stack(rows)


@pytest.fixture(scope="module", params=["prior", "v_prior"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.getfixturevalue(request.param))


@pytest.mark.parametrize("method", ["denoised", "sds"])
@pytest.mark.parametrize("control", [True, False])
def test_the_gradient_is_the_equation(case: Case, method: str, control: bool) -> None:
    config = DistillationConfig(method=method, guidance_scale=4.0, control_weight=1.2)
    grad, n_nonfinite, _ = case.gradient(config, control)
    expected = case.slow_gradient(config, control)
    torch.testing.assert_close(grad, expected, atol=1e-4, rtol=1e-3)
    assert n_nonfinite == 0


def test_the_loss_carries_the_gradient_to_the_pictures(case: Case) -> None:
    """dL/d(latents) is the gradient over B, and reaches the pictures through the encoder alone."""
    config = DistillationConfig()
    rgb = case.rgb.clone().requires_grad_()
    out = ScoreDistillation(case.prior, config)(
        rgb, case.text, case.negative, control=case.control, visible=VISIBLE,
        t=STEPS, noise=case.noise, generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    out["loss_sds"].backward()

    again = case.rgb.clone().requires_grad_()
    latents = case.prior.encode(again, sample=True, generator=torch.Generator().manual_seed(3))
    grad, _, _ = case.gradient(config, latents=latents.detach())
    latents.backward(grad / B)
    torch.testing.assert_close(rgb.grad, again.grad, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(out["grad_norm"], grad.norm())
    torch.testing.assert_close(
        out["loss_sds"].detach(), 0.5 * grad.square().sum() / B, rtol=1e-3, atol=1e-4
    )


def test_latents_may_be_given_directly(case: Case) -> None:
    config = DistillationConfig()
    given = case.latents.movedim(1, -1).clone().requires_grad_()
    out = ScoreDistillation(case.prior, config)(
        given, case.text, case.negative, control=case.control, visible=VISIBLE,
        t=STEPS, noise=case.noise, rgb_as_latents=True,
    )  # fmt: skip
    out["loss_sds"].backward()
    grad, _, _ = case.gradient(config)
    torch.testing.assert_close(given.grad.movedim(-1, 1), grad / B, atol=1e-5, rtol=1e-4)


def test_the_negative_prompt_is_predicted_only_where_it_counts(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(prior)
    sizes = []
    forward = prior.unet.forward

    def counting(sample, *args, **kwargs):
        sizes.append(len(sample))
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(prior.unet, "forward", counting)
    mixed, _, n_predictions = case.gradient(DistillationConfig())
    assert sizes == [2 * B + 3] == [n_predictions]  # one pass; three of five are late
    early = case.gradient(DistillationConfig(), steps=STEPS.clamp(max=199))[2]
    sds = case.gradient(DistillationConfig(method="sds"))[2]
    assert sizes[1:] == [2 * B, 2 * B] == [early, sds]
    # The negative prompt changes the late samples, and no other.
    other = prior.embed_text(["blurry"]).expand(B, -1, -1)
    changed, _, _ = case.gradient(DistillationConfig(), negative=other)
    difference = (changed - mixed).abs().amax(dim=(1, 2, 3))
    assert (difference[2:] > 1e-4).all()
    assert (difference[:2] < 1e-6).all()


@pytest.mark.parametrize("method", ["denoised", "sds"])
def test_an_empty_negative_prompt_is_not_predicted_for(prior: DiffusionPrior, method: str) -> None:
    case = Case(prior)
    config = DistillationConfig(method=method)
    null = prior.null_embedding.expand(B, -1, -1)
    expected, _, n_asked = case.gradient(config, negative=null)
    grad, _, n_predictions = case.gradient(config, negative=None)
    assert n_predictions == 2 * B
    assert n_asked == 2 * B + 3 * (method == "denoised")
    torch.testing.assert_close(grad, expected, atol=1e-4, rtol=1e-3)


def test_invisible_faces_and_weight_zero_leave_the_controlnet_out(prior: DiffusionPrior) -> None:
    case = Case(prior)
    with_control, _, _ = case.gradient(DistillationConfig())
    without, _, _ = case.gradient(DistillationConfig(), control=False)
    off, _, _ = case.gradient(DistillationConfig(control_weight=0.0))
    torch.testing.assert_close(off, without)
    hidden = VISIBLE == 0
    torch.testing.assert_close(with_control[hidden], without[hidden], atol=1e-5, rtol=1e-4)
    difference = (with_control - without)[~hidden].abs().amax(dim=(1, 2, 3))
    assert (difference > 1e-3).all()


def released_gradient(case: Case, rgb: torch.Tensor, method: str) -> torch.Tensor:
    """dL/d(rgb) of one view after the other by the equations of the authors' release.

    On diffusers' modules alone. z = E(x), z_t = sqrt(abar) z + sqrt(1 - abar) eps, predictions for
    prompt, negative prompt and none under one control image; with
    delta_C = s (e_text - e_null) and m = [t < 200], the gradient with respect to z is

        denoised:  (1 - abar) (delta_C + m e_null + (1 - m) (e_null - e_neg))
        sds:       (1 - abar) (e_null + delta_C - eps)
    """
    prior, s, weight = case.prior, 7.5, 1.5
    scheduler = DDIMScheduler.from_config(prior.scheduler_config)
    generator = torch.Generator().manual_seed(3)
    posterior_noise = torch.randn(case.latents.shape, generator=generator)
    rows = []
    for i in range(B):
        t = STEPS[i : i + 1]
        picture = rgb[i : i + 1].permute(0, 3, 1, 2).detach().requires_grad_()
        small = torch.nn.functional.interpolate(picture, (IMAGE_SIZE,) * 2, mode="bilinear")
        posterior = prior.vae.encode(small * 2 - 1).latent_dist
        z = posterior.mean + posterior.std * posterior_noise[i : i + 1]
        z = z * prior.vae.config.scaling_factor
        eps = case.noise[i : i + 1]
        with torch.no_grad():
            z_t = scheduler.add_noise(z, eps, t)
            predictions = []
            for embedding in (case.text[i], case.negative[i], prior.null_embedding[0]):
                down, middle = prior.controlnet(
                    z_t,
                    t,
                    encoder_hidden_states=embedding[None],
                    controlnet_cond=case.control[i : i + 1].permute(0, 3, 1, 2),
                    conditioning_scale=weight * float(VISIBLE[i]),
                    return_dict=False,
                )
                predictions.append(
                    prior.unet(
                        z_t,
                        t,
                        encoder_hidden_states=embedding[None],
                        down_block_additional_residuals=down,
                        mid_block_additional_residual=middle,
                    ).sample
                )
            e_text, e_neg, e_null = predictions
            delta_c = s * (e_text - e_null)
            if method == "denoised":
                m = float(t < 200)
                total = delta_c + m * e_null + (1 - m) * (e_null - e_neg)
            else:
                total = e_null + delta_c - eps
            grad = (1 - scheduler.alphas_cumprod[t]) * total
        z.backward(grad / B)
        rows.append(picture.grad.permute(0, 2, 3, 1))
    return torch.cat(rows)


@pytest.mark.parametrize("method", ["denoised", "sds"])
def test_pictures_get_the_gradient_of_the_authors_release(
    prior: DiffusionPrior, method: str
) -> None:
    case = Case(prior)
    rgb = case.rgb.clone().requires_grad_()
    out = ScoreDistillation(prior, DistillationConfig(method=method))(
        rgb, case.text, case.negative, control=case.control, visible=VISIBLE,
        t=STEPS, noise=case.noise, generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    out["loss_sds"].backward()
    expected = released_gradient(case, case.rgb, method)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(rgb.grad, expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize("control", [True, False])
def test_fewer_views_at_once_give_the_same_gradient(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch, at_once: int, control: bool
) -> None:
    case = Case(prior)
    encoded: list[int] = []
    forward = prior.vae.encoder.forward

    def counting(pictures: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pictures))
        return forward(pictures)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        rgb = case.rgb.clone().requires_grad_()
        out = ScoreDistillation(prior)(
            rgb, case.text, case.negative, t=STEPS, noise=case.noise, visible=VISIBLE,
            control=case.control if control else None,
            generator=torch.Generator().manual_seed(3),
        )  # fmt: skip
        out["loss_sds"].backward()
        return out["loss_sds"].detach(), rgb.grad

    expected = run()
    monkeypatch.setattr(prior, "views_at_once", at_once)
    monkeypatch.setattr(prior.vae.encoder, "forward", counting)
    found = run()
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-6)
    # Nothing is kept: every part is encoded once, and once more on the way back.
    assert max(encoded) == at_once
    assert sum(encoded) == 2 * B


def test_timesteps_are_uniform_in_the_scheduled_range(prior: DiffusionPrior) -> None:
    guidance = ScoreDistillation(
        prior, DistillationConfig(min_step_percent=0.05, max_step_percent=0.8)
    )
    for percents, low, high in ((None, 50, 800), ((0.02, 0.55), 20, 550), ((0.0, 1.0), 0, 999)):
        if percents is not None:
            guidance.set_step_range(*percents)
        assert (guidance.min_step, guidance.max_step) == (low, high)
        drawn = guidance._steps(20_000, None, torch.Generator().manual_seed(0))
        assert drawn.min() == low
        assert drawn.max() == high
        assert drawn.float().mean() == pytest.approx((low + high) / 2, rel=0.02)
    with pytest.raises(HeadStudioError, match=r"max_step_percent=1\.5"):
        guidance.set_step_range(0.02, 1.5)


def test_the_same_seed_gives_the_same_gradient(prior: DiffusionPrior) -> None:
    case = Case(prior)
    losses = [
        ScoreDistillation(prior)(
            case.rgb, case.text, case.negative, control=case.control,
            generator=torch.Generator().manual_seed(seed),
        )["loss_sds"]
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_clipping(prior: DiffusionPrior) -> None:
    case = Case(prior)
    free, _, _ = case.gradient(DistillationConfig())
    value, _, _ = case.gradient(DistillationConfig(grad_clip=0.3))
    torch.testing.assert_close(value, free.clamp(-0.3, 0.3))
    assert (free.abs() > 0.3).any()
    norms = free.flatten(1).norm(dim=1)
    limit = float(norms.median())
    normed, _, _ = case.gradient(DistillationConfig(grad_clip=limit, grad_clip_mode="norm"))
    torch.testing.assert_close(normed.flatten(1).norm(dim=1), norms.clamp(max=limit))
    torch.testing.assert_close(
        torch.nn.functional.normalize(normed.flatten(1)),
        torch.nn.functional.normalize(free.flatten(1)),
    )


def test_uniform_weighting(prior: DiffusionPrior) -> None:
    case = Case(prior)
    weighted, _, _ = case.gradient(DistillationConfig())
    plain, _, _ = case.gradient(DistillationConfig(weighting="uniform"))
    w = (1 - prior.alphas_cumprod[STEPS]).view(-1, 1, 1, 1)
    torch.testing.assert_close(weighted, w * plain)


def test_what_is_not_finite_is_counted_and_zeroed(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(prior)
    expected, _, _ = case.gradient(DistillationConfig())
    predict = prior.predict_noise

    def broken(*args, **kwargs):
        predicted = predict(*args, **kwargs)
        predicted[0, 0, 0, 0] = float("nan")  # the prompt's, of the first sample
        predicted[1, 1, :2, 0] = float("inf")
        return predicted

    monkeypatch.setattr(prior, "predict_noise", broken)
    grad, n_nonfinite, _ = case.gradient(DistillationConfig())
    assert n_nonfinite == 3
    expected[0, 0, 0, 0] = 0
    expected[1, 1, :2, 0] = 0
    torch.testing.assert_close(grad, expected)
    out = ScoreDistillation(prior)(case.rgb, case.text, case.negative, t=STEPS)
    assert out["n_nonfinite"] == 3
    assert out["loss_sds"].isfinite()


def test_the_threshold_scales_with_the_number_of_timesteps(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior, "num_train_timesteps", 500)
    case = Case(prior)
    steps = torch.tensor([30, 99, 100, 101, 400])
    assert case.gradient(DistillationConfig(), steps=steps)[2] == 2 * B + 3


def test_preview_shows_what_the_guidance_sees(prior: DiffusionPrior) -> None:
    case = Case(prior)
    guidance = ScoreDistillation(prior)
    t = torch.tensor([0, 1, 500, 500, 900])
    seen = guidance.preview(case.rgb, case.text, control=case.control, visible=VISIBLE, t=t)
    for name in ("imgs_noisy", "imgs_1step", "control"):
        assert seen[name].shape == (B, IMAGE_SIZE, IMAGE_SIZE, 3)
        assert seen[name].min() >= 0
        assert seen[name].max() <= 1
    assert torch.equal(seen["control"][0], case.control[0])
    assert not seen["control"][1].any()  # it has no weight there
    # With hardly any noise, what it sees is the autoencoder's picture of the render.
    clean = prior.decode(prior.encode(case.rgb))
    near = (seen["imgs_noisy"] - clean).abs().mean(dim=(1, 2, 3))
    assert near[0] < 0.25 * near[4]
    assert torch.equal(
        guidance.preview(case.rgb, case.text)["imgs_1step"],
        guidance.preview(case.rgb, case.text)["imgs_1step"],
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "dreamfusion"),
        ("weighting", "sigma"),
        ("grad_clip_mode", "abs"),
        ("grad_clip", 0.0),
        ("min_step_percent", 0.99),
        ("max_step_percent", 1.5),
    ],
)
def test_impossible_settings_are_named(prior: DiffusionPrior, key: str, value) -> None:
    with pytest.raises(HeadStudioError, match=f"{key}="):
        ScoreDistillation(prior, DistillationConfig(**{key: value}))


def test_wrong_shapes_are_named(prior: DiffusionPrior) -> None:
    case = Case(prior)
    guidance = ScoreDistillation(prior)
    with pytest.raises(HeadStudioError, match=r"expected \[B, H, W, 3\]"):
        guidance(case.rgb.movedim(-1, 1), case.text, case.negative)
    with pytest.raises(HeadStudioError, match="negative embeddings have shape"):
        guidance(case.rgb, case.text, case.negative[:2], t=STEPS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_and_waits_for_nothing(prior: DiffusionPrior, prior_folder) -> None:
    case = Case(prior)
    there = DiffusionPrior.from_pretrained(prior_folder, device="cuda", dtype=torch.float32)
    guidance = ScoreDistillation(there)
    moved = {
        name: getattr(case, name).cuda()
        for name in ("latents", "text", "negative", "control", "noise")
    }
    visible = VISIBLE.cuda()
    guidance.gradient(steps=STEPS, visible=visible, **moved)  # caches the empty prompt
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        grad, _, _ = guidance.gradient(steps=STEPS, visible=visible, **moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected, _, _ = case.gradient(DistillationConfig())
    torch.testing.assert_close(grad.cpu(), expected, atol=2e-2, rtol=2e-2)
