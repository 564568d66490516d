"""The model of the paper: attention, masks, the Q-Former, frozen encoders and language models, both stages.

    attention_kernels          which of PyTorch's fused kernels ran
    attention, masks           multi-head attention; the three masks of Figure 2
    qformer                    queries and text in one transformer (section 3.1)
    vision_encoder             frozen image encoders: ViT-g, ViT-L, the micro model's
    masked_autoencoder         how an image encoder is trained from images alone (MAE)
    language_model, decoding,  frozen language models; how the next token is chosen;
    beam_search                beam search for the Q-Former's captions
    texts, other_names         what is no list of texts is refused; LAVIS's and transformers' names of things
    losses, stage1             section 3.2: ITC, ITM, ITG as functions of tensors, and the model that computes them
    stage2                     section 3.3: the Q-Former's output as a soft prompt
    bridges/                   what may stand in the Q-Former's place: a projector, gated cross-attention, and others
    retrieval                  section 4.4: ITC shortlist, ITM re-ranking
    quantize, compile          frozen models in 8 or 4 bits; a compiled decoder
    micro                      sizes of the micro model

Paper: section 3. Notebooks: 01 to 07, 10.
"""

from blip2_lab.models.attention import MultiHeadAttention
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import LanguageModel
from blip2_lab.models.losses import itc_loss, itg_loss, itm_loss
from blip2_lab.models.masks import bidirectional_mask, multimodal_causal_mask, unimodal_mask
from blip2_lab.models.qformer import QFormer, QFormerConfig
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder

__all__ = [
    "Decoding",
    "ImageEncoder",
    "LanguageModel",
    "MultiHeadAttention",
    "QFormer",
    "QFormerConfig",
    "Stage1Config",
    "Stage1Model",
    "Stage2Model",
    "bidirectional_mask",
    "itc_loss",
    "itg_loss",
    "itm_loss",
    "multimodal_causal_mask",
    "unimodal_mask",
]
