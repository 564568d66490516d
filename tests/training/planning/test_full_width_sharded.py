"""Two layers of BLIP2-Adapter-XL at full width under FSDP2: two processes on a CPU (gloo), four passes, one step.

It is the one description that says FSDP. The frozen layers are in bfloat16, as the plan counts them, and each process
makes one layer after the other, so that both together need about 7 GB.
"""

import math
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from blip2_lab.checkpoints.memory import free_memory
from blip2_lab.models.language_model import Text, decoder_layers, language_model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import freeze
from blip2_lab.training.bridge_parts import bridge_of
from blip2_lab.training.planning.bridges import bridge_blueprint
from blip2_lab.training.planning.large_models import large_vit, llama
from blip2_lab.training.planning.parameters import count_parameters
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.run_folder import read_log
from blip2_lab.training.trainer import train

LAYERS, VOCABULARY, TOKENS, WORLD = 2, 1000, 6, 2


class TwoLayers:
    """The Q-Former trains through two frozen layers of ViT-G/14 and of LLaMA-33B."""

    def __init__(self, image_size: int) -> None:
        parts = get("adapter-xl").model
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        encoder = freeze(large_vit(parts.image_encoder, image_size, layers=LAYERS))
        language = language_model(llama(parts.language_model, LAYERS, VOCABULARY))
        torch.set_default_dtype(torch.float32)
        bridge = bridge_of(replace(parts, num_layers=LAYERS), encoder.width, language.width, LAYERS)
        self.model = Stage2Model(encoder, bridge, language)

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        size = self.model.image_encoder.image_size
        pixels = torch.randn(1, 3, size, size, generator=generator)
        return {"pixels": pixels, "ids": torch.randint(3, VOCABULARY, (1, TOKENS), generator=generator)}

    def compute_losses(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            features = self.model.image_encoder(batch["pixels"])
        prompt = self.model.visual_prompt(features.float())
        ids, width = batch["ids"], self.model.language_model.width
        assert prompt.shape == (1, 32, width) and features.shape[1:] == (1370, 1664)
        answer = Text(ids, torch.ones_like(ids, dtype=torch.bool))
        return {"total": self.model.language_model.answer_loss(prompt, Text(ids[:, :2], answer.mask[:, :2]), answer)}


def one_step(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    recipe = get("adapter-xl")
    assert recipe.optim.shard and recipe.optim.accumulate == 4
    optim = replace(recipe.optim, steps=1, warmup_steps=0, batch_size=4 * WORLD)
    task = TwoLayers(recipe.model.image_size)
    planned = bridge_blueprint(recipe)
    language = task.model.language_model.model
    for ours, theirs in (
        (task.model.image_encoder.model.encoder.layers, planned.image_encoder.model.encoder.layers),
        (task.model.qformer.layers, planned.parts["Q-Former"].layers),
        (decoder_layers(language), decoder_layers(planned.language)),
    ):
        assert count_parameters(ours[0]) == count_parameters(theirs[0])
    if rank == 0:
        trained = {name: p.detach().clone() for name, p in task.model.named_parameters() if p.requires_grad}
        torch.save(trained, Path(folder) / "before.pt")
        del trained
    train(task, optim, run_dir=Path(folder) / "run", log_every=1, progress=False)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_adapter_xl_under_fsdp2(tmp_path):
    if free_memory("cpu") < 10e9:
        pytest.skip("two layers at full width in two processes need 8 GB of free memory")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(one_step, args=(port, str(tmp_path)), nprocs=WORLD)
    (record,) = (r for r in read_log(tmp_path / "run") if "total" in r)
    assert math.isfinite(record["total"]) and 0 < record["grad_norm"] < math.inf
    before = torch.load(tmp_path / "before.pt", weights_only=True)
    after = load_file(tmp_path / "run" / "checkpoints" / "step-1" / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    still = [name for name, tensor in after.items() if torch.equal(tensor, before[name])]
    assert all(name.endswith("key.bias") for name in still), still  # softmax does not depend on it
