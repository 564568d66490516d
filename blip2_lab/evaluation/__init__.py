"""Evaluation: metrics as pure functions, and a model measured on held-out scenes.

    metrics        exact match, accuracy, confidence intervals, F1 of sets, recall, boxes
    calibration    how often an answer of a confidence is right
    captioning     BLEU, ROUGE-L, CIDEr-D; METEOR and SPICE where Java is
    ptb_tokenizer  the Penn Treebank tokenizer that caption scores are defined on
    vqa            VQA accuracy by both official rules
    scenes         questions, captions and retrieval on held-out scenes of the picture book
    own_pictures   captions, questions and retrieval on a folder or file of one's own
    search         phrases such as "a red boat", as a user of the search types them
    referring      which of the things is meant? Acc@IoU of candidate boxes
    bridges        one model of a comparison of bridges: raw results, question by question
    natural        questions in a visitor's own words, and a judge of the answers

Begin with `evaluate`, which `blip2-lab evaluate` calls; `blip2-lab evaluate --on` calls `own_pictures.evaluate_on`.

Paper: section 4. Notebooks: 09, 11.
"""

from blip2_lab.evaluation.metrics import accuracy, confidence_interval, exact_match, recall_at, set_scores
from blip2_lab.evaluation.scenes import evaluate, image_features, question_accuracy, question_hits, questions

__all__ = [
    "accuracy",
    "confidence_interval",
    "evaluate",
    "exact_match",
    "image_features",
    "question_accuracy",
    "question_hits",
    "questions",
    "recall_at",
    "set_scores",
]
