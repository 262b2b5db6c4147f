"""The prior's training, in small, on coloured discs instead of characters."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from headstudio.errors import HeadStudioError
from headstudio.guidance import DiffusionPrior
from tools import train_prior
from tools.prior.data import (
    LatentBatch,
    LatentPool,
    add_stray_words,
    attribute_classes,
    render_chunk,
)
from tools.prior.diffusion import Noiser
from tools.prior.models import make_denoiser, make_unet, predict_noise
from tools.prior.optimize import Learner, Progress, learning_rate
from tools.prior.running import PhaseLoop, Run
from tools.prior.sampling import pictures_of_views
from tools.prior.saving import pack, save_prior, unpack
from tools.prior.settings import Phase, Settings, Sizes, preset
from tools.prior.tokenizer import encode, load_tokenizer, train_tokenizer
from tools.prior.training import train

COLORS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.2), "blue": (0.1, 0.2, 0.9)}
VIEWS = ("front", "side", "back")


@dataclass
class Discs:
    """A disc per picture: its colour is the skin, its place across the picture the view."""

    size: int = 32

    def render(self, n_pictures: int, generator: torch.Generator) -> dict[str, Any]:
        color = torch.randint(len(COLORS), (n_pictures,), generator=generator)
        view = torch.randint(len(VIEWS), (n_pictures,), generator=generator)
        y, x = torch.meshgrid(torch.arange(self.size), torch.arange(self.size), indexing="ij")
        center = self.size * (0.35 + 0.15 * view)[:, None, None]
        radius = (x - center).square() + (y - self.size / 2).square()
        inside = (radius < (self.size / 4) ** 2).float()[..., None]
        ring = ((radius.sqrt() - self.size / 4).abs() < 1).float()[..., None]
        facing = (view < 2).float()
        palette = torch.tensor(list(COLORS.values()))
        names = list(COLORS)
        return {
            "image": inside * palette[color][:, None, None] + (1 - inside) * 0.5,
            "control": ring.expand(-1, -1, -1, 3) * facing[:, None, None, None],
            "control_weight": facing,
            "captions": [
                f"a head with {names[c]} skin, {VIEWS[v]} view"
                for c, v in zip(color.tolist(), view.tolist(), strict=True)
            ],
            "attributes": {"skin": color, "view": view},
            "attribute_names": {"skin": names, "view": list(VIEWS)},
        }


def tiny(**changes: Any) -> Settings:
    return replace(preset("tiny"), **changes)


def run_in(folder: Path, settings: Settings, deadline: float = float("inf")) -> Run:
    return Run(settings, torch.device("cpu"), folder / "state", folder / "logs", deadline)


class StopsAfter(Run):
    """A run whose time is up after so many steps."""

    steps_left = 0

    def out_of_time(self) -> bool:
        self.steps_left -= 1
        return self.steps_left < 0


def train_in_pieces(folder: Path, settings: Settings, steps: int) -> int:
    """Train with a stop after every few steps; how many calls it took."""
    for call in range(1, 20):
        run = StopsAfter(settings, torch.device("cpu"), folder / "state", folder / "logs")
        run.steps_left = steps
        if train(run, Discs(), Discs(), folder / "prior"):
            return call
    raise AssertionError("never complete")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only lose time on the way between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert train(run_in(folder, tiny()), Discs(), Discs(), folder / "prior")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    prior = folder / "prior"
    parts = {
        "unet": UNet2DConditionModel,
        "controlnet": ControlNetModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
    }
    return {
        f"{part}.{key}": value
        for part, kind in parts.items()
        for key, value in kind.from_pretrained(prior, subfolder=part).state_dict().items()
    }


def test_saved_folder_is_a_working_pipeline(trained: Path) -> None:
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(trained / "prior")
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline.to(torch.float32)(
        "a head with blue skin",
        image=Image.new("RGB", (32, 32)),
        num_inference_steps=2,
        output_type="np",
    ).images
    assert result.shape == (1, 32, 32, 3)
    assert result.std() > 0


def test_saved_parts_agree_with_each_other(trained: Path) -> None:
    prior = trained / "prior"
    tokenizer = CLIPTokenizer.from_pretrained(prior, subfolder="tokenizer")
    text = CLIPTextModel.from_pretrained(prior, subfolder="text_encoder")
    unet = UNet2DConditionModel.from_pretrained(prior, subfolder="unet")
    assert text.config.eos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert text.config.vocab_size == len(tokenizer)
    assert unet.config.cross_attention_dim == text.config.hidden_size
    for scheduler in (DDIMScheduler, PNDMScheduler):
        loaded = scheduler.from_pretrained(prior, subfolder="scheduler")
        assert loaded.alphas_cumprod[-1] == pytest.approx(0.00466, abs=1e-4)  # SD 1.5's
    assert all(p.dtype == torch.float16 for p in unet.half().parameters())
    stored = json.loads((prior / "text_encoder" / "config.json").read_text())
    assert stored["dtype"] == "float16"


def test_guidance_loads_it_and_predicts_the_same_noise(trained: Path) -> None:
    prior = DiffusionPrior.from_pretrained(trained / "prior", dtype=torch.float32)
    assert (prior.image_size, prior.latent_size, prior.control_size) == (32, 8, 32)
    generator = torch.Generator().manual_seed(0)
    noisy, control = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, 32, 32, 3)
    t, weight = torch.tensor([100, 900]), torch.tensor([1.0, 0.0])
    text = prior.embed_text(["a head with blue skin, front view", ""])
    guided = prior.predict_noise(noisy, t, text, control, weight)
    with torch.no_grad():
        ours = predict_noise(
            prior.unet, prior.controlnet, noisy, t, text, control.movedim(-1, 1), weight
        )
    assert torch.allclose(guided, ours, atol=1e-5)
    assert not torch.allclose(text[0], text[1])


def test_scaling_factor_makes_unit_latents(trained: Path) -> None:
    vae = AutoencoderKL.from_pretrained(trained / "prior", subfolder="vae").float()
    images = render_chunk(Discs(), tiny(), 0, 0).image.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mode() * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1.0, abs=0.2)


def test_logs_and_pictures_are_left(trained: Path) -> None:
    logs = trained / "logs"
    for name in ("curves", "samples_guidance_3", "samples_guidance_7.5", "samples_truth"):
        assert Image.open(logs / f"{name}.png").size[0] > 200
    table = (logs / "diffusion.csv").read_text().splitlines()
    assert {"step", "loss", "attribute_loss", "text/skin", "text/view"} <= {*table[0].split(",")}
    assert [row.split(",")[0] for row in table[1:]] == ["0", "2", "4"]
    about = json.loads((trained / "prior" / "training.json").read_text())
    assert about["complete"] is True
    assert about["diffusion_steps"] == 6
    assert 0 <= about["figures"]["guidance_7.5/skin"] <= 1


def test_stopping_and_going_on_changes_nothing(trained: Path, tmp_path: Path) -> None:
    calls = train_in_pieces(tmp_path, tiny(), steps=5)
    assert calls > 2
    straight, pieces = weights(trained), weights(tmp_path)
    for name, value in straight.items():
        assert torch.equal(value, pieces[name]), name


def test_other_settings_do_not_continue_a_run(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadStudioError, match=r"caption_dropout was 0\.12, now 0\.5"):
        train(run_in(trained, tiny(caption_dropout=0.5)), Discs(), Discs(), tmp_path / "prior")
    assert not (tmp_path / "prior").exists()


def test_damaged_state_is_named(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for file in ("settings.json", "tokenizer"):
        (tmp_path / "state" / file).symlink_to(trained / "state" / file)
    (tmp_path / "state" / "autoencoder.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(HeadStudioError, match=r"autoencoder\.pt cannot be read"):
        train(run_in(tmp_path, tiny()), Discs(), Discs(), tmp_path / "prior")


def test_autoencoder_and_denoiser_learn(tmp_path: Path) -> None:
    base = tiny()
    settings = replace(
        base,
        autoencoder=replace(base.autoencoder, steps=120, batch=8, log_every=20),
        diffusion=replace(base.diffusion, steps=60, batch=16, log_every=20, ema_decay=0.9),
        held_out_pictures=48,
        attribute_weight=1.0,
    )
    run = run_in(tmp_path, settings)
    assert train(run, Discs(), Discs(), tmp_path / "prior")
    autoencoder, diffusion = run.tables["autoencoder"], run.tables["diffusion"]
    assert autoencoder[-1]["psnr"] > autoencoder[0]["psnr"] + 3
    assert diffusion[-1]["loss"] < 0.8 * diffusion[0]["loss"]
    assert diffusion[-1]["text/skin"] == 1.0  # three words to tell apart


def test_last_call_plans_the_rest_of_the_phase(tmp_path: Path) -> None:
    phase = Phase(minutes=60, batch=1, learning_rate=1.0, warmup_steps=1)
    run = run_in(tmp_path, tiny())
    learner = Learner({"net": torch.nn.Linear(2, 2)}, phase, run.device)
    loop = PhaseLoop(run, "diffusion", phase, learner)
    loop.progress = Progress(step=10, seconds=60.0)
    assert learning_rate(learner.phase, loop.progress) == pytest.approx(1.0, abs=1e-3)
    loop.end_by(time.monotonic() + 60.0)
    assert learning_rate(learner.phase, loop.progress) == pytest.approx(0.5, abs=1e-2)
    loop.progress.seconds = 119.9
    assert not loop.done
    assert learning_rate(learner.phase, loop.progress) == pytest.approx(0.01)
    loop.progress.seconds = 120.0
    assert loop.done


def test_last_call_completes_the_phase(tmp_path: Path) -> None:
    """Though saving takes time that the phase's own clock leaves out."""
    phase = Phase(minutes=60, batch=1, learning_rate=1.0)

    def opened(run: Run) -> PhaseLoop:
        learner = Learner({"net": torch.nn.Linear(2, 2)}, phase, run.device)
        return PhaseLoop(run, "diffusion", phase, learner)

    settings = tiny(checkpoint_minutes=0.0)  # after every step
    stopped = opened(run_in(tmp_path, settings))
    stopped.run.deadline = time.monotonic() + 0.1
    assert sum(1 for _ in stopped) > 0
    assert not stopped.done

    last = opened(run_in(tmp_path, settings))
    last.resume(0)
    last.run.deadline = time.monotonic() + 0.3
    last.end_by(last.run.deadline)
    assert sum(1 for _ in last) > 0
    assert last.progress.fraction(last.phase) < 1.0
    assert last.done

    later = opened(run_in(tmp_path, settings))
    later.resume(0)
    assert later.done
    assert list(later) == []

    too_late = opened(run_in(tmp_path / "other", settings))
    too_late.end_by(time.monotonic() - 1.0)
    assert not too_late.done


def test_learner_is_adam_in_full_precision() -> None:
    """Master weights must follow AdamW on float32 gradients, and the average must lag behind."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    reference = torch.nn.Linear(3, 2)
    reference.load_state_dict(network.state_dict())
    phase = Phase(minutes=60, batch=1, learning_rate=1e-3, warmup_steps=1, ema_decay=0.5)
    learner = Learner({"net": network}, phase, torch.device("cpu"))
    adam = torch.optim.AdamW(
        [
            {"params": [reference.weight], "weight_decay": 0.01},
            {"params": [reference.bias], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.99),
    )
    average = {k: v.clone() for k, v in reference.state_dict().items()}
    for step in range(20):
        for working, full in zip(network.parameters(), reference.parameters(), strict=True):
            working.grad = (0.1 * torch.randn_like(full)).bfloat16()
            full.grad = working.grad.float()
        norm = learner.step(Progress(step=step))
        assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0))
        adam.step()
        decay = min(0.5, (1 + step) / (10 + step))
        for key, value in reference.state_dict().items():
            average[key].lerp_(value, 1 - decay)
    for master, full in zip(learner.master, reference.parameters(), strict=True):
        assert torch.allclose(master, full, atol=1e-6)
    kept = torch.nn.Linear(3, 2)
    learner.copy_average({"net": kept})
    assert torch.allclose(kept.weight, average["weight"], atol=1e-6)
    assert network.weight.dtype == torch.bfloat16
    assert torch.equal(network.weight, reference.weight.bfloat16()) or torch.allclose(
        network.weight.float(), reference.weight, rtol=2**-7
    )


def test_noise_and_its_weights(trained: Path) -> None:
    """z_t = sqrt(a) z + sqrt(1 - a) e, dropped parts are empty, weights are min(SNR, 5) / SNR."""
    settings = tiny(caption_dropout=0.5, control_dropout=0.5)
    tokenizer = load_tokenizer(trained / "state" / "tokenizer")
    empty = encode(tokenizer, [""])[0]
    noiser = Noiser(settings, empty, torch.device("cpu"))
    batch = LatentBatch(
        latents=torch.randn(64, 4, 8, 8).half(),
        control=torch.full((64, 32, 32, 3), 255, dtype=torch.uint8),
        control_weight=torch.ones(64),
        tokens=encode(tokenizer, ["a head with blue skin"]).int().expand(64, -1),
        labels=torch.zeros(64, 2, dtype=torch.long),
    )
    noised = noiser(batch, torch.Generator().manual_seed(0))
    alpha = DDIMScheduler.from_pretrained(trained / "prior", subfolder="scheduler").alphas_cumprod
    a = alpha[noised.timesteps][:, None, None, None]
    expected = a.sqrt() * batch.latents.float() + (1 - a).sqrt() * noised.noise
    assert torch.allclose(noised.noisy, expected, atol=1e-5)
    wordless = (noised.tokens == empty).all(1)
    assert 16 < wordless.sum() < 48
    assert torch.equal((noised.labels == -100).all(1), wordless)
    unseen = noised.control_weight == 0
    assert 16 < unseen.sum() < 48
    assert torch.equal(noised.control.float().amax((1, 2, 3)) == 0, unseen)
    snr = (a / (1 - a)).flatten()
    weight = noiser.weight(noised.timesteps)
    assert torch.allclose(weight, torch.where(snr < 5, 1.0, 5 / snr), rtol=1e-4)


def test_archives_restore_the_folder(trained: Path, tmp_path: Path) -> None:
    archives = pack(trained / "prior", tmp_path / "packed")
    assert all(a.stat().st_size <= 16 * 2**20 for a in archives)
    count = unpack(archives, tmp_path / "back")
    files = [f for f in (trained / "prior").rglob("*") if f.is_file()]
    assert count == len(files) > 10
    for file in files:
        copy = tmp_path / "back" / file.relative_to(trained / "prior")
        assert copy.read_bytes() == file.read_bytes()


def test_archives_that_reach_outside_are_refused(tmp_path: Path) -> None:
    import io
    import tarfile

    evil = tmp_path / "evil_00.tar"
    with tarfile.open(evil, "w") as tar:
        member = tarfile.TarInfo("../outside.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(HeadStudioError, match="nothing was unpacked"):
        unpack([evil], tmp_path / "back")
    assert not (tmp_path / "outside.txt").exists()
    with pytest.raises(HeadStudioError, match="cannot be unpacked"):
        unpack([tmp_path / "missing.tar"], tmp_path / "back")


def test_full_size_fits_and_too_large_is_refused(trained: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(trained / "state" / "tokenizer")
    out = tmp_path / "prior"
    out.mkdir()
    (out / "README.md").write_text("kept")
    for channels, fits in (((48, 96, 192), True), ((64, 128, 256), False)):
        sizes = Sizes(unet_channels=channels, attention_heads=(4, 4, 6))
        denoiser = make_denoiser(sizes, tokenizer, [3, 3])
        vae = AutoencoderKL.from_pretrained(trained / "prior", subfolder="vae")
        if fits:
            size = save_prior(out, denoiser, vae, trained / "state" / "tokenizer", {})
            assert 26 * 2**20 < size < 30 * 2**20  # with the tiny autoencoder; the real has 1.8
            assert max(f.stat().st_size for f in out.rglob("*") if f.is_file()) <= 15 * 2**20
            assert (out / "README.md").read_text() == "kept"
        else:
            before = sorted(p.name for p in tmp_path.iterdir())
            with pytest.raises(HeadStudioError, match="more than 32"):
                save_prior(out, denoiser, vae, trained / "state" / "tokenizer", {"new": 1})
            assert json.loads((out / "training.json").read_text()) == {}
            assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_weight_zero_switches_the_controlnet_off(trained: Path) -> None:
    torch.manual_seed(0)
    tokenizer = load_tokenizer(trained / "state" / "tokenizer")
    denoiser = make_denoiser(tiny().sizes, tokenizer, [3, 3])
    for convolution in denoiser.controlnet.controlnet_down_blocks:
        torch.nn.init.normal_(convolution.weight)
    noisy, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    control, time_ = torch.rand(2, 3, 32, 32), torch.tensor([10, 900])
    with torch.no_grad():
        out = predict_noise(
            denoiser.unet, denoiser.controlnet, noisy, time_, text, control, torch.tensor([0.0, 1])
        )
        alone = denoiser.unet(noisy, time_, text).sample
    assert torch.allclose(out[0], alone[0], atol=1e-5)
    assert (out[1] - alone[1]).abs().max() > 1e-3


def test_pool_replaces_oldest_and_can_be_rebuilt(trained: Path) -> None:
    settings = tiny(diffusion_pictures=48)
    tokenizer = load_tokenizer(trained / "state" / "tokenizer")

    def average(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float().mean((1, 2))[:, :, None, None].expand(-1, -1, 8, 8) / 255

    pool = LatentPool(Discs(), settings, tokenizer, average)
    first = {name: value.clone() for name, value in pool.tensors.items()}
    pool.refresh()
    assert torch.equal(pool.tensors["latents"][16:], first["latents"][16:])
    assert not torch.equal(pool.tensors["tokens"][:16], first["tokens"][:16])
    again = LatentPool(Discs(), settings, tokenizer, average, pool.chunks_made)
    for name, value in pool.tensors.items():
        assert torch.equal(value, again.tensors[name])
    batch = pool.draw(40, torch.Generator().manual_seed(0))
    for row in range(40):  # the parts of a picture stay together
        place = (pool.tensors["latents"] == batch.latents[row]).flatten(1).all(1)
        assert any(
            (pool.tensors["tokens"][i] == batch.tokens[row]).all(-1).any()
            for i in place.nonzero().flatten().tolist()
        )


def test_stray_words_keep_the_caption(trained: Path) -> None:
    import numpy as np

    captions = ["a head with red skin, front view", "a head"] * 50
    changed = add_stray_words(captions, 0.5, np.random.default_rng(0))
    differing = [(a, b) for a, b in zip(captions, changed, strict=True) if a != b]
    assert 30 < len(differing) < 70
    for before, after in differing:
        assert all(part in after.split(", ") for part in before.split(", "))


def test_grid_columns_show_the_views_they_are_named_after() -> None:
    captions = ["a, side view", "b", "c, front view", "d, back view", "e, front view"]
    assert pictures_of_views(captions) == [2, 0, 3, 4]
    assert pictures_of_views(captions[:2]) == [0, 1]


# --- tokenizer -----------------------------------------------------------------------------


CAPTIONS = ["a DSLR portrait of a woman with blue skin and long red hair, front view"] * 50


def test_tokenizer_files_are_deterministic(tmp_path: Path) -> None:
    for name in "ab":
        train_tokenizer(CAPTIONS, tmp_path / name, 1500)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    vocabulary = json.loads((tmp_path / "a" / "vocab.json").read_text())
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= 1500


def test_tokenizer_knows_words_and_never_fails(tmp_path: Path) -> None:
    train_tokenizer(CAPTIONS, tmp_path, 1500)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == 77
    pieces = tokenizer.tokenize("A Woman with BLUE skin, einstein")
    assert pieces == ["a</w>", "woman</w>", "with</w>", "blue</w>", "skin</w>", ",</w>",
                      "einstein</w>"]  # fmt: skip
    for text in ("größte 名前 ☃", "\x00\x1b", "x" * 500, "🙂🙂", "a\n\tb"):
        ids = encode(tokenizer, [text])[0]
        assert ids.shape == (77,)
        end = (ids == tokenizer.eos_token_id).nonzero()[0, 0]
        assert (ids[end:] == tokenizer.eos_token_id).all()  # nothing unknown in the middle
        assert end > 1
    assert encode(tokenizer, [""])[0, :2].tolist() == [
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    ]
    for text in ("größte", "☃ snow", "zqx"):
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tokenizer_files_are_those_of_any_clip_reader(tmp_path: Path) -> None:
    """Encode with nothing but vocab.json and merges.txt, as CLIP's reference code does."""
    train_tokenizer(CAPTIONS, tmp_path, 1500)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    lines = (tmp_path / "merges.txt").read_text().strip().split("\n")
    assert lines[0].startswith("#version")
    ranks = {tuple(line.split()): i for i, line in enumerate(lines[1:])}
    for word in ("portrait", "blued", "qx"):
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pairs = [(ranks.get(p, 1e9), i) for i, p in enumerate(itertools.pairwise(parts))]
            rank, i = min(pairs)
            if rank == 1e9:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        expected = [vocabulary[p] for p in parts]
        assert CLIPTokenizer.from_pretrained(tmp_path)(word).input_ids[1:-1] == expected


def test_tokenizer_refuses_what_it_cannot_learn(tmp_path: Path) -> None:
    with pytest.raises(HeadStudioError, match="514"):
        train_tokenizer(CAPTIONS, tmp_path, 500)
    with pytest.raises(HeadStudioError, match="0 captions"):
        train_tokenizer([], tmp_path, 1500)


# --- command line ---------------------------------------------------------------------------


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_prior, "open_datasets", lambda *_: (Discs(), Discs()))
    common = [
        "--preset", "tiny", "--device", "cpu", "--out", str(tmp_path / "prior"),
        "--state", str(tmp_path / "state"), "--logs", str(tmp_path / "logs"),
    ]  # fmt: skip
    start = time.monotonic()
    assert train_prior.main([*common, "--stop-after-minutes", "0"]) == 0
    assert "run the same command again" in capsys.readouterr().out
    assert not (tmp_path / "prior").exists()
    assert train_prior.main([*common, "--pack", str(tmp_path / "packed")]) == 0
    assert "complete" in capsys.readouterr().out
    assert time.monotonic() - start < 120
    archives = sorted(str(f) for f in (tmp_path / "packed").glob("prior_*.tar"))
    assert train_prior.main(["--unpack", *archives, "--out", str(tmp_path / "copy")]) == 0
    UNet2DConditionModel.from_pretrained(tmp_path / "copy", subfolder="unet")
    assert len(list((tmp_path / "packed").iterdir())) <= 8


def test_a_finished_prior_is_trained_on(trained: Path, tmp_path: Path) -> None:
    """Autoencoder and tokenizer stay; with a learning rate of nothing, so does all the rest."""
    start = trained / "prior"
    settings = tiny(start_from=str(start), diffusion=Phase(60.0, 8, 0.0, steps=2))
    run = Run(settings, torch.device("cpu"), tmp_path / "state", tmp_path / "logs")
    assert train(run, Discs(), Discs(), tmp_path / "out")
    for part, file in (
        ("vae", "diffusion_pytorch_model.safetensors"),
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("controlnet", "diffusion_pytorch_model.safetensors"),
        ("text_encoder", "model.safetensors"),
    ):
        before, after = (load_file(f / part / file) for f in (start, tmp_path / "out"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before), part
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / "out/tokenizer" / name).read_bytes() == (
            start / "tokenizer" / name
        ).read_bytes()
    assert json.loads((tmp_path / "out/training.json").read_text())["started_from"] == json.loads(
        (start / "training.json").read_text()
    )


def test_a_prior_of_other_sizes_is_not_gone_on_from(trained: Path, tmp_path: Path) -> None:
    sizes = replace(tiny().sizes, unet_channels=(16, 48, 48))
    wrong = tiny(start_from=str(trained / "prior"), sizes=sizes)
    run = Run(wrong, torch.device("cpu"), tmp_path / "state", tmp_path / "logs")
    with pytest.raises(HeadStudioError, match="sizes"):
        train(run, Discs(), Discs(), tmp_path / "out")
    nowhere = tiny(start_from=str(tmp_path / "nothing"))
    run = Run(nowhere, torch.device("cpu"), tmp_path / "state2", tmp_path / "logs")
    with pytest.raises(HeadStudioError, match="to go on from"):
        train(run, Discs(), Discs(), tmp_path / "out")


def test_command_line_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_prior.main(["--preset", "tiny", "--pictures-diffusion", "3"]) == 1
    assert "less than one chunk" in capsys.readouterr().err
    assert train_prior.main(["--unpack", str(tmp_path / "no.tar")]) == 1
    assert "cannot be unpacked" in capsys.readouterr().err
    with pytest.raises(HeadStudioError, match="choose full"):
        preset("huge")


def test_classes_come_from_the_source() -> None:
    assert attribute_classes(Discs(), 0) == {"skin": list(COLORS), "view": list(VIEWS)}
    assert make_unet(Sizes()).config.sample_size == 32
    assert "tools.prior.training" in sys.modules
