"""LoRA and the question in the Q-Former at the true widths, cut to two layers, with random weights, on a CPU.

ViT-g, a Q-Former of BERT-base's width and FlanT5-XL or OPT-2.7B, as `plan` has them. The vocabulary of the language
model is small: it is a lookup table and one matrix. One step of AdamW, then the same function after merging.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from blip2_lab.checkpoints.memory import free_memory
from blip2_lab.common.distributed import enable_gradient_checkpointing
from blip2_lab.models.language_model import language_model
from blip2_lab.models.micro import new_opt, new_t5
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder, eva_vit_g_config
from blip2_lab.training.lora import add_lora, lora_parameters, merge_lora, without_unused_text
from blip2_lab.training.planning.parameters import blueprint
from blip2_lab.training.planning.plan import plan
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import LoraConfig, override

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
LAYERS, VOCABULARY, EXAMPLES, TOKENS = 2, 1000, 2, 6
LORA = LoraConfig(rank=8, layers="attention")


def two_layers_of(name: str) -> Stage2Model:
    """The model of a recipe with two layers in each of its parts."""
    planned = blueprint(get(name))
    vision = eva_vit_g_config()
    vision.num_hidden_layers = LAYERS
    shape, kind = planned.language.config.to_dict() | {"vocab_size": VOCABULARY}, type(planned.language.config)
    is_t5 = planned.language.config.is_encoder_decoder
    layers = dict(num_layers=LAYERS, num_decoder_layers=LAYERS) if is_t5 else dict(num_hidden_layers=LAYERS)
    language = (new_t5 if is_t5 else new_opt)(kind(**shape | layers))
    qformer = QFormer(replace(planned.qformer.config, num_layers=LAYERS, dropout=0.0))
    return Stage2Model(ImageEncoder.from_config(vision), qformer, language_model(language))


@pytest.mark.parametrize("name", ["finetune-vqa-flant5-xl", "finetune-vqa-opt-2.7b"])
def test_one_step_with_lora_and_a_question_and_the_same_function_after_merging(name):
    if free_memory(torch.device("cpu")) < 12e9:
        pytest.skip("needs 12 GB of memory")
    torch.manual_seed(0)
    model = two_layers_of(name)
    assert model.qformer.config.has_text and model.qformer.config.width == 768 and model.image_encoder.width == 1408
    add_lora(model, LORA)
    without_unused_text(model.qformer)
    enable_gradient_checkpointing(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        features = model.image_encoder(torch.randn(EXAMPLES, 3, 224, 224, generator=generator))
    ids = torch.randint(3, VOCABULARY, (EXAMPLES, TOKENS), generator=generator)
    real = torch.ones_like(ids)
    from blip2_lab.models.language_model import Text

    text = Text(ids, real.bool())

    def loss() -> torch.Tensor:
        return model.language_model.answer_loss(model.bridge(features, ids, real), text, text)

    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    before = loss()
    before.backward()
    adapted = {name: p for name, p in model.named_parameters() if "lora" in name}
    assert all(p.grad.isfinite().all() for p in trained)
    assert all(p.grad.any() for name, p in adapted.items() if "lora_B" in name)  # B is zero, so A has no gradient yet
    optimizer.step()
    after = loss()
    assert after < before
    assert all(torch.equal(dict(model.named_parameters())[name], p) for name, p in frozen.items())
    merge_lora(model)
    assert loss().item() == pytest.approx(after.item(), rel=1e-4)


def test_the_plan_of_lora_trains_a_thousandth_and_counts_what_peft_adds():
    recipe = get("finetune-vqa-flant5-xl")
    for change in ("lora.rank=8", "model.train_image_encoder=false"):
        recipe = override(recipe, change)
    parts = blueprint(recipe).parts
    planned, without = plan(recipe), plan(override(recipe, "lora.rank=0"))
    expected = sum(lora_parameters(parts[name], recipe.lora) for name in ("language model", "Q-Former"))
    # T5-XL: q and v of 24 + 2 * 24 attentions, 2048 x 2048 each
    assert lora_parameters(parts["language model"], recipe.lora) == 72 * 2 * 8 * 4096
    assert planned.parameters["LoRA"] == expected and planned.trained == ("language projection", "LoRA")
    assert planned.trained_share < 0.01 < without.trained_share
    assert sum(planned.memory.values()) < sum(without.memory.values())
