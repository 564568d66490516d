"""Beam search over a `step` function, used for the captions of the Q-Former.

`beam_search` is the search, `best_continuations` one step of it, `final_score` the length penalty.

Notes:

* It is independent of the model: `step` takes one token for each beam and returns log-probabilities.
* The result equals that of transformers, token for token (tested). Finished sequences are kept; the search ends when no
  open beam can still score higher than the worst of the kept ones.
* With one beam it is greedy search and ends at the first end token.

Paper: section 4.2 (captions by beam search). Notebook: 07.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def best_continuations(scores: Tensor, log_probs: Tensor, count: int) -> list[tuple[float, int, int]]:
    """One step of beam search: the `count` best of all K * V continuations of K beams, best first.

    scores [K], each beam's log-probability so far; log_probs [K, V] of its next token -> (new score, beam, token).
    """
    totals = scores[:, None] + log_probs
    best = totals.flatten().topk(count)
    vocab_size = log_probs.shape[-1]
    continuations = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [(score, index // vocab_size, index % vocab_size) for score, index in continuations]


def final_score(log_probability: float, length: int, length_penalty: float) -> float:
    """The score that finished beams are compared by: log-probability / length ** length_penalty.

    Log-probabilities are negative, so a *positive* exponent favors long sequences and the paper's -1 favors short ones.
    """
    return log_probability / length**length_penalty


class BeamRecorder:
    """A `step` that records the open beams, for one row: `beam_search(recorder, ...)`, then read `rounds`.

    rounds  for each token after the first: (sequence so far, index of its parent beam in the round before, score)
    """

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.step = step
        self.rounds: list[list[tuple[list[int], int, float]]] = []
        self._beams: list[tuple[list[int], float]] = [([], 0.0)]
        self._log_probs: Tensor | None = None

    def __call__(self, tokens: Tensor, parents: Tensor) -> Tensor:
        beams = []
        for token, parent in zip(tokens.tolist(), parents.tolist(), strict=True):
            sequence, score = self._beams[parent]
            gained = 0.0 if self._log_probs is None else self._log_probs[parent, token].item()
            beams.append(([*sequence, token], parent, score + gained))
        if self._log_probs is not None:
            self.rounds.append(beams)
        self._beams = [(sequence, score) for sequence, _, score in beams]
        self._log_probs = self.step(tokens, parents)
        return self._log_probs.clone()  # the search masks the end token in place

    def path(self, sequence: list[int]) -> list[int]:
        """In each round, the index of the beam that became `sequence`, while it was open."""
        found = []
        for beams in self.rounds:
            opened = [i for i, (so_far, _, _) in enumerate(beams) if so_far == sequence[: len(so_far)]]
            if not opened:
                break
            found.append(opened[0])
        return found


def beam_search(
    step: Callable[[Tensor, Tensor], Tensor],
    *,
    batch_size: int,
    start_id: int,
    end_id: int,
    num_beams: int,
    max_length: int,
    min_length: int = 1,
    length_penalty: float = 1.0,
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """The best sequence of each row, from `start_id` to `end_id` (or to `max_length` tokens, which count both).

    step   (tokens long[B*K], parents long[B*K]) -> log-probabilities [B*K, V]. Beam i continues the beam that had index
           `parents[i]` in the previous call; reorder cached keys and values by it. (In the first call there are no
           beams yet, and parents are the indices of the rows.)
    """
    if num_beams < 1 or max_length < 2:
        raise ValueError(f"num_beams is {num_beams} and max_length {max_length}; they must be at least 1 and 2.")
    parents = torch.arange(batch_size, device=device).repeat_interleave(num_beams)
    tokens = torch.full_like(parents, start_id)
    sequences = [[[start_id]] * num_beams for _ in range(batch_size)]
    scores = torch.zeros(batch_size, num_beams, device=device)
    scores[:, 1:] = -1e9  # all beams start with the same token: only the first one may branch
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch_size)]
    done = [False] * batch_size

    for length in range(1, max_length):  # the number of generated tokens after this round
        log_probs = step(tokens, parents)
        if length < min_length:
            log_probs[:, end_id] = -torch.inf
        by_row = log_probs.view(batch_size, num_beams, -1)
        # twice as many as beams: K remain open even if every beam ends here
        candidates = [best_continuations(*row, 2 * num_beams) for row in zip(scores, by_row, strict=True)]
        kept = []
        for row in range(batch_size):
            going_on = []
            for rank, (score, beam, token) in enumerate(candidates[row]):
                if token != end_id:
                    going_on.append((score, beam, token))
                elif rank < num_beams and not done[row]:
                    finished[row].append((final_score(score, length, length_penalty), [*sequences[row][beam], token]))
            finished[row] = sorted(finished[row], key=lambda pair: -pair[0])[:num_beams]
            kept.append(going_on[:num_beams])
            if len(finished[row]) == num_beams:
                best_possible = final_score(kept[row][0][0], length, length_penalty)
                done[row] = done[row] or num_beams == 1 or finished[row][-1][0] >= best_possible
            sequences[row] = [[*sequences[row][beam], token] for _, beam, token in kept[row]]
        scores = torch.tensor([[score for score, _, _ in row] for row in kept], device=device)
        tokens = torch.tensor([token for row in kept for _, _, token in row], device=device)
        parents = torch.tensor([i * num_beams + j for i, row in enumerate(kept) for _, j, _ in row], device=device)
        if all(done):
            break

    for row in range(batch_size):
        if not done[row]:
            length = len(sequences[row][0]) - 1
            open_beams = zip(scores[row].tolist(), sequences[row], strict=True)
            finished[row] += [(final_score(score, length, length_penalty), sequence) for score, sequence in open_beams]
    return [max(row, key=lambda pair: pair[0])[1] for row in finished]
