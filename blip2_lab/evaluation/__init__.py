"""How good is a model? Scores as pure functions, and drivers that run a model over held-out examples.

    metrics  exact match, accuracy, confidence intervals, sets, recall
    scenes   questions, captions and retrieval on held-out scenes of the picture book
    natural  questions about them in a visitor's own words, and a judge of the answers

Paper: section 4. Notebooks: 09, 11.
"""

from blip2_lab.evaluation.metrics import accuracy, confidence_interval, exact_match, recall_at, set_scores
from blip2_lab.evaluation.scenes import evaluate, image_features, question_accuracy, questions

__all__ = [
    "accuracy",
    "confidence_interval",
    "evaluate",
    "exact_match",
    "image_features",
    "question_accuracy",
    "questions",
    "recall_at",
    "set_scores",
]
