"""What the trainer trains: a model, its batches, its losses and its evaluation, one module for each part of the paper.

    base         what the tasks on pictures share
    stage1       representation learning (section 3.2)
    stage2       generative learning (section 3.3)
    finetune     captions, answers, retrieval (sections 4.2 to 4.4)
    pretraining  the frozen parts of the miniature, from nothing
    word_sums    exercises for its language model

Paper: sections 3.2 to 3.4 and 4. Notebooks: 08, 11.
"""
