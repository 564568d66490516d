"""Two and four processes (gloo), DDP and FSDP2, accumulation: all equal one process with the whole batch."""

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import FSDPModule

from blip2_lab.checkpoints.load import read_stage1, save_stage1
from blip2_lab.common import distributed
from blip2_lab.models.bridges import GatedCrossAttention, GatedCrossAttentionConfig
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.training.recipes.schema import OptimConfig
from blip2_lab.training.run_folder import checkpoints, read_log
from blip2_lab.training.trainer import pass_numbers, train

OPTIM = OptimConfig(lr=1e-3, warmup_steps=1, steps=5, batch_size=8, precision="fp32")
SIZES = dict(vocab_size=50, width=16, num_layers=3, num_heads=2, ffn_width=32, image_width=12, num_query_tokens=3)


class TinyStage1Task:
    """Stage 1 on random features and texts of very different lengths, behind a frozen stack that only looks frozen."""

    def __init__(self, optim: OptimConfig, dropout: float = 0.0, broken_from: int = 1000) -> None:
        torch.manual_seed(0)
        qformer = QFormerConfig(**SIZES, max_positions=16, dropout=dropout)
        stage1 = Stage1Model(qformer, Stage1Config(embed_width=8, sep_token_id=3, decode_token_id=49))
        frozen = nn.ModuleList(nn.Linear(12, 12) for _ in range(2)).requires_grad_(False)
        self.model = nn.ModuleDict({"stage1": stage1, "frozen": frozen})
        self.generator = torch.Generator()
        self.pass_size, self.parts = optim.pass_size, optim.batch_size // optim.pass_size
        self.broken_from = broken_from

    def batch(self, index):
        step, part = divmod(index, self.parts)
        if step >= self.broken_from:
            raise OSError("the disk went away")
        generator = torch.Generator().manual_seed(step)
        size = self.pass_size * self.parts
        features, ids = (
            torch.randn(size, 5, 12, generator=generator),
            torch.randint(4, 40, (size, 9), generator=generator),
        )
        lengths = torch.randint(2, 10, (size,), generator=generator)
        ids = ids.masked_fill(torch.arange(9) >= lengths[:, None], 0)
        own = slice(part * self.pass_size, (part + 1) * self.pass_size)
        return {"image_features": features[own], "input_ids": ids[own]}

    def compute_losses(self, batch, passes=1):
        features = batch["image_features"]
        for layer in self.model["frozen"]:
            features = layer(features)
        batch = batch | {"image_features": features}
        losses = self.model["stage1"].losses(**batch, generator=self.generator, passes=passes)
        return {"total": losses.total, "itc": losses.itc, "itm": losses.itm, "itg": losses.itg}

    def compute_joint_losses(self, batches):
        return self.compute_losses(
            {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}, len(batches)
        )

    def evaluate(self, step):
        embeds = self.model["stage1"].embed_image(
            self.batch(0)["image_features"][:1]
        )  # not through the engine's module
        return {"norm": embeds.norm(dim=-1).mean().item()}

    def save(self, folder: Path):
        save_stage1(self.model["stage1"], folder)


class WeightedTask:
    """A mean over tokens, of which every example has another number."""

    def __init__(self, optim: OptimConfig) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)
        self.pass_size, self.parts = optim.pass_size, optim.batch_size // optim.pass_size

    def batch(self, index):
        step, part = divmod(index, self.parts)
        generator = torch.Generator().manual_seed(step)
        size = self.pass_size * self.parts
        x, tokens = torch.randn(size, 6, 4, generator=generator), torch.randint(1, 7, (size, 1), generator=generator)
        own = slice(part * self.pass_size, (part + 1) * self.pass_size)
        return {"x": x[own], "mask": (torch.arange(6) < tokens)[own]}

    def compute_losses(self, batch):
        errors = (self.model(batch["x"]).squeeze(-1) - 1).pow(2)[batch["mask"]]
        return {"total": errors.mean(), "weight": batch["mask"].sum()}


class GatedTask:
    """Gated blocks before the layers of a frozen stack."""

    def __init__(self, optim: OptimConfig) -> None:
        torch.manual_seed(0)
        sizes = GatedCrossAttentionConfig(12, 16, num_layers=4, num_heads=2, every=2, ffn_width=32)
        bridge = GatedCrossAttention(sizes)
        with torch.no_grad():
            for name, parameter in bridge.named_parameters():
                if name.endswith("_gate"):
                    parameter.fill_(0.5)
        frozen = nn.ModuleList(nn.Linear(16, 16) for _ in range(4)).requires_grad_(False)
        self.model = nn.ModuleDict({"bridge": bridge, "frozen": frozen})
        self.pass_size, self.parts = optim.pass_size, optim.batch_size // optim.pass_size

    def batch(self, index):
        step, part = divmod(index, self.parts)
        generator = torch.Generator().manual_seed(step)
        size = self.pass_size * self.parts
        features, text = (torch.randn(size, n, w, generator=generator) for n, w in ((5, 12), (7, 16)))
        own = slice(part * self.pass_size, (part + 1) * self.pass_size)
        return {"features": features[own], "text": text[own]}

    def compute_losses(self, batch):
        bridge, x = self.model["bridge"], batch["text"]
        with bridge.attending(self.model["frozen"], bridge.keys_values(bridge(batch["features"]))):
            for layer in self.model["frozen"]:
                x = layer(x)
        return {"total": (x - 1).square().mean()}


# ------------------------------------------------------------------------------------------------ what the runs leave


def weights(run: Path, step: int = 5) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step}" / "model.safetensors")


def losses(run: Path) -> list[list[float]]:
    return [[r[name] for name in ("total", "itc", "itm", "itg", "grad_norm")] for r in read_log(run) if "total" in r]


def assert_same_training(run: Path, reference: Path) -> None:
    torch.testing.assert_close(losses(run), losses(reference), atol=2e-5, rtol=1e-5)
    expected = weights(reference)
    for name, tensor in weights(run).items():
        # a key's bias changes no softmax: its gradient is rounding noise, of which Adam makes whole steps
        if not name.endswith("key.bias"):
            torch.testing.assert_close(tensor, expected[name], atol=2e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def quietly(task, optim: OptimConfig, run_dir: Path, **options) -> None:
    train(task, optim, run_dir=run_dir, progress=False, log_every=1, **options)


# --------------------------------------------------------------------------------------------------- many processes


VARIANTS = {
    "ddp": {},
    "ddp-passes": {"accumulate": 2},
    "fsdp": {"shard": True},
    "fsdp-passes": {"accumulate": 2, "shard": True, "checkpoint_layers": True},
}


def run_rank(rank: int, world: int, port: int, folder: str, work: Callable[[Path], None]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    # where nobody says, accelerate gives each process every core, and their threads wait for each other
    os.environ |= {"MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    work(Path(folder))
    torch.distributed.destroy_process_group()


def train_variants(runs: Path) -> None:
    for name, changes in VARIANTS.items():
        optim = replace(OPTIM, **changes)
        quietly(TinyStage1Task(optim), optim, runs / name, save_every=3, eval_every=5)


def train_cut_gated_and_weighted(runs: Path) -> None:
    for name in ("ddp", "fsdp"):  # cut in the middle and resumed
        optim = replace(OPTIM, **VARIANTS[name])
        for broken_from in (3, 1000):
            try:
                quietly(TinyStage1Task(optim, 0.3, broken_from), optim, runs / f"{name}-cut", save_every=2)
            except OSError:
                assert broken_from == 3
            else:
                assert broken_from == 1000, "it was not cut, so nothing is resumed"
        quietly(TinyStage1Task(optim, 0.3), optim, runs / f"{name}-whole", save_every=2)
    optim = replace(OPTIM, shard=True, accumulate=4)
    task = GatedTask(optim)
    quietly(task, optim, runs / "gated", save_every=2)
    matrices = [part for part in task.model["bridge"].modules() if isinstance(part, nn.Linear)]
    assert len(matrices) == 12 and all(isinstance(matrix, FSDPModule) for matrix in matrices)
    optim = replace(OPTIM, precision="bf16")
    quietly(TinyStage1Task(optim), optim, runs / "bf16")
    quietly(WeightedTask(OPTIM), OPTIM, runs / "weighted")
    try:
        optim = replace(OPTIM, batch_size=9)
        quietly(TinyStage1Task(optim), optim, runs / "refused")
    except ValueError as error:
        (runs / f"refused-{os.environ['RANK']}").write_text(str(error))


def spawn(world: int, folder: Path, work: Callable[[Path], None]) -> Path:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.set_forkserver_preload([__name__])  # one import for all processes
    mp.start_processes(run_rank, args=(world, port, str(folder), work), nprocs=world, start_method="forkserver")
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """One process with the whole batch."""
    folder = tmp_path_factory.mktemp("one")
    quietly(TinyStage1Task(OPTIM), OPTIM, folder / "stage1", eval_every=5)
    quietly(WeightedTask(OPTIM), OPTIM, folder / "weighted")
    quietly(GatedTask(OPTIM), OPTIM, folder / "gated")
    return folder


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> Path:
    """Two processes, each variant."""
    return spawn(2, tmp_path_factory.mktemp("variants"), train_variants)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Two processes: runs that are cut and resumed, gated blocks, bf16, weighted means, a batch that is refused."""
    return spawn(2, tmp_path_factory.mktemp("two"), train_cut_gated_and_weighted)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
def test_two_processes_equal_one(variants, reference, name):
    run = variants / name
    assert_same_training(run, reference / "stage1")
    (norm,) = (r["evaluation"]["norm"] for r in read_log(run) if "evaluation" in r)
    assert norm == pytest.approx(1.0)
    saved = read_stage1(run / "model")  # sharded parameters are whole again
    assert torch.equal(saved.qformer.query_tokens, weights(run)["stage1.qformer.query_tokens"])
    assert [path.name for path in checkpoints(run)] == ["step-3", "step-5"]


def test_sharded_gated_blocks_with_four_passes_equal_one_process(two, reference):
    found, expected = weights(two / "gated"), weights(reference / "gated")
    assert found.keys() == expected.keys() and any("expand" in name for name in found)
    for name, tensor in found.items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(tensor, expected[name], atol=2e-5, rtol=0)
    totals = [[r["total"] for r in read_log(run)] for run in (two / "gated", reference / "gated")]
    assert totals[0] == pytest.approx(totals[1], rel=1e-5) and totals[0][-1] < totals[0][0]


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_resume_bitwise(two, name):
    cut, whole = weights(two / f"{name}-cut"), weights(two / f"{name}-whole")
    assert cut.keys() == whole.keys() and all(torch.equal(cut[key], tensor) for key, tensor in whole.items())
    assert len(losses(two / f"{name}-whole")) == 5
    assert losses(two / f"{name}-cut") == losses(two / f"{name}-whole")


def test_two_processes_in_bf16_stay_close(two, reference):
    assert len(losses(reference / "stage1")) == 5
    for ours, exact in zip(losses(two / "bf16"), losses(reference / "stage1"), strict=True):
        assert ours[0] == pytest.approx(exact[0], rel=0.05)


def test_means_are_weighted_by_their_counts(two, reference, tmp_path):
    optim = replace(OPTIM, accumulate=4)
    quietly(WeightedTask(optim), optim, tmp_path)
    expected = weights(reference / "weighted")
    for run in (two / "weighted", tmp_path):
        torch.testing.assert_close(weights(run), expected, atol=1e-6, rtol=1e-5)
        totals = [[r["total"] for r in read_log(path)] for path in (run, reference / "weighted")]
        assert totals[0] == pytest.approx(totals[1], rel=1e-5)


def test_a_batch_that_cannot_be_split_is_refused_in_all_processes(two):
    for rank in range(2):
        assert (
            two / f"refused-{rank}"
        ).read_text() == "batch_size 9 cannot be split among 2 processes: choose a multiple"


@pytest.mark.slow
def test_four_processes_equal_one(tmp_path, reference):
    four = spawn(4, tmp_path, train_variants)
    for name in VARIANTS:
        assert_same_training(four / name, reference / "stage1")


# ------------------------------------------------------------------------------------------------------- one process


@pytest.mark.parametrize("changes", [{"accumulate": 4}, {"accumulate": 2, "checkpoint_layers": True}])
@pytest.mark.slow
def test_accumulated_passes_equal_the_whole_batch(reference, tmp_path, changes):
    optim = replace(OPTIM, **changes)
    quietly(TinyStage1Task(optim), optim, tmp_path)
    assert_same_training(tmp_path, reference / "stage1")


def test_naive_accumulation_differs(reference, tmp_path):
    """The mutant: contrastive losses of each pass by itself see fewer candidates."""
    optim = replace(OPTIM, accumulate=4)
    task = TinyStage1Task(optim)
    task.compute_joint_losses = None
    naive = type("Naive", (), {"model": task.model, "batch": task.batch, "compute_losses": task.compute_losses})()
    quietly(naive, optim, tmp_path)
    assert losses(tmp_path)[0][1] < 0.7 * losses(reference / "stage1")[0][1]


def test_pass_numbers():
    optim = replace(OPTIM, accumulate=2)
    assert pass_numbers(optim, range(3, 5)) == [6, 7, 8, 9]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert pass_numbers(optim, range(1, 3), rank=1) == [6, 7, 10, 11]
        assert optim.pass_size == 2 and replace(optim, accumulate=1).pass_size == 4


def test_sharding_needs_several_processes(tmp_path):
    with pytest.raises(ValueError, match="several"):
        quietly(TinyStage1Task(OPTIM), replace(OPTIM, shard=True), tmp_path)


def test_processes_that_do_not_find_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "number_of_processes", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)  # as on a machine whose device cannot share
    with pytest.raises(ValueError, match="do not find each other"):
        quietly(TinyStage1Task(OPTIM), OPTIM, tmp_path)


def test_gradient_checkpointing_saves_memory_and_keeps_gradients():
    def backward(recompute):
        task = TinyStage1Task(replace(OPTIM, batch_size=8))
        if recompute:
            distributed.enable_gradient_checkpointing(task.model)
            distributed.enable_gradient_checkpointing(task.model)  # twice is once
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            total = task.compute_losses(task.batch(0))["total"]
        total.backward()
        return sum(kept), [p.grad for p in task.model["stage1"].parameters()]

    (much, expected), (little, gradients) = backward(False), backward(True)
    assert little < 0.6 * much
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_stacks_are_lists_of_equal_layers():
    model = nn.ModuleDict(
        {
            "layers": nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]),
            "mixed": nn.ModuleList([nn.Linear(1, 1), nn.GELU()]),
            "single": nn.ModuleList([nn.Linear(1, 1)]),
        }
    )
    assert distributed.layer_stacks(model) == [model["layers"]]
