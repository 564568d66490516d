"""Losses and gradients of two processes (gloo) equal those of LAVIS on two ranks."""

import json
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from blip2_lab.models.stage1 import gather_across_ranks
from tests.lavis_golden import RTOL_GRADIENT, batch, gradients, model, numbers, tensors, two_ranks


def run_rank(rank: int, folder: str) -> None:
    """What one process computes, as JSON."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    result = {}

    lavis = model(gather_with_grad=False)
    lavis.losses(**batch(rows)).total.backward()
    result["local_norms"] = norms(lavis)
    result["targets"] = lavis._positives(batch(rows)["input_ids"], None).int().argmax(dim=1).tolist()

    lavis = model(gather_with_grad=False)
    parallel = DistributedDataParallel(lavis)
    losses = parallel(**batch(rows))
    losses.total.backward()
    result["losses"] = {"loss_itc": losses.itc.item(), "loss_itm": losses.itm.item(), "loss_lm": losses.itg.item()}
    result["norms"] = norms(lavis)

    lavis = model(gather_with_grad=True)
    lavis.losses(**batch(rows)).itc.backward()
    for parameter in lavis.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= 2
    result["norms_itc_with_grad"] = norms(lavis)

    image_id = tensors()["imgid.in.image_id"][rows]
    result["imgid_itc"] = lavis.losses(**batch(rows), image_id=image_id).itc.item()

    # The ranks' texts may be of different lengths: rank 0 without its longest text, rank 1 as it is.
    short = batch(slice(0, 2)) if rank == 0 else batch(slice(4, 6))
    if rank == 0:
        short["input_ids"], short["attention_mask"] = short["input_ids"][:, :7], short["attention_mask"][:, :7]
    short["negatives"] = (torch.tensor([3, 2]), torch.tensor([2, 3])) if rank == 0 else (torch.tensor([1, 0]),) * 2
    result["short_itm"] = lavis.losses(**short).itm.item()
    del short["negatives"]
    result["drawn_is_finite"] = lavis.losses(**short).total.isfinite().item()

    x = torch.full((2,), float(rank), requires_grad=True)
    gathered = gather_across_ranks(x)
    (gathered * torch.arange(4.0)).sum().backward()
    result["gathered"], result["gathered_grad"] = gathered.tolist(), x.grad.tolist()

    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(result, file)
    dist.destroy_process_group()


def norms(lavis) -> dict[str, float]:
    return {name: grad.double().norm().item() for name, grad in gradients(lavis).items()}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("ranks"))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.set_forkserver_preload([__name__])  # one import for both processes
    mp.start_processes(run_rank, args=(folder,), nprocs=2, start_method="forkserver")
    return [json.load(open(f"{folder}/{rank}.json")) for rank in (0, 1)]


@pytest.mark.parametrize("rank", [0, 1])
def test_losses_of_each_rank_equal_lavis(ranks, rank):
    expected = two_ranks()[f"rank{rank}"]["loss"]
    assert ranks[rank]["losses"].keys() == {"loss_itc", "loss_itm", "loss_lm"}
    for name, loss in ranks[rank]["losses"].items():
        assert loss == pytest.approx(expected[name], abs=2e-5)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("ours", "theirs"), [("local_norms", "local_grad_norms"), ("norms", "ddp_avg_grad_norms")])
def test_gradients_of_each_rank_and_averaged_equal_lavis(ranks, rank, ours, theirs):
    expected = two_ranks()[f"rank{rank}"][theirs]
    assert len(expected) == 127
    if ours == "local_norms":
        # LAVIS gathers images after this LayerNorm, with gradient; here each rank normalizes what it judges by itself,
        # so this one gradient lies on another rank, and its average, which is what trains, is the same
        expected = {name: norm for name, norm in expected.items() if not name.startswith("ln_vision.")}
    for name, norm in expected.items():
        assert ranks[rank][ours][name] == pytest.approx(norm, rel=RTOL_GRADIENT, abs=1e-6), name


@pytest.mark.parametrize("rank", [0, 1])
def test_each_rank_finds_its_own_texts_among_all(ranks, rank):
    assert ranks[rank]["targets"] == two_ranks()[f"rank{rank}"]["targets"]


def test_with_gradient_two_ranks_equal_one_process(ranks):
    expected = numbers()["variant_gather_with_grad"]["grad_norms_loss_itc"]
    assert len(ranks) == 2 and len(expected) == 120
    for result in ranks:
        for name, norm in expected.items():
            assert result["norms_itc_with_grad"][name] == pytest.approx(norm, rel=RTOL_GRADIENT, abs=1e-6), name


def test_same_image_positives_are_found_across_ranks(ranks):
    mean = (ranks[0]["imgid_itc"] + ranks[1]["imgid_itc"]) / 2
    assert mean == pytest.approx(numbers()["imgid_loss"]["loss_itc"], abs=2e-5)


def test_texts_of_different_lengths_are_gathered(ranks):
    samples = [0, 1, 4, 5]
    io, lavis = tensors(), model()
    data = {name: io[f"in.{name}"][samples] for name in ("image_features", "input_ids", "attention_mask")}
    together = lavis.losses(**data, negatives=(torch.tensor([3, 2, 1, 0]), torch.tensor([2, 3, 1, 0]))).itm.item()
    assert (ranks[0]["short_itm"] + ranks[1]["short_itm"]) / 2 == pytest.approx(together, abs=2e-5)
    assert ranks[0]["drawn_is_finite"] and ranks[1]["drawn_is_finite"]


def test_gather_sums_the_gradients_of_all_ranks(ranks):
    assert len(ranks) == 2
    for rank, result in enumerate(ranks):
        assert result["gathered"] == [0.0, 0.0, 1.0, 1.0]
        assert result["gathered_grad"] == [2 * (2 * rank), 2 * (2 * rank + 1)]
