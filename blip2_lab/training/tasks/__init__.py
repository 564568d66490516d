"""Tasks: a model with its batches, its losses and its evaluation, as the trainer needs them (`trainer.Task`).

    base          what the tasks on images share
    stage1        representation learning (section 3.2)
    stage2        generative learning (section 3.3)
    finetune      captioning, question answering, retrieval (sections 4.2 to 4.4)
    dual_encoder  ITC and ITM of two encoders (ALBEF)
    instruction   answers in dialogues: the second phase of a bridge
    pretraining   the frozen models of the miniature, from random weights
    masked_images  an image encoder from images alone: a masked autoencoder
    own_parts     the frozen models of a world of your own
    word_sums     exercises for its language model

Paper: sections 3.2 to 3.4 and 4. Notebooks: 08, 11.
"""
