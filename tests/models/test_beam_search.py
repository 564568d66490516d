import pytest
import torch

from blip2_lab.models.beam_search import BeamRecorder, beam_search, best_continuations, final_score

START, END = 0, 1


def markov(table):
    """A model whose next token depends on the last one: rows of probabilities."""
    log_probs = torch.tensor(table).log()
    return lambda tokens, parents: log_probs[tokens].clone()


def test_greedy_takes_the_likeliest_token_and_stops_at_the_end_token():
    step = markov([[0.0, 0.1, 0.6, 0.3], [0.25] * 4, [0.0, 0.3, 0.1, 0.6], [0.0, 0.9, 0.05, 0.05]])
    search = dict(batch_size=2, start_id=START, end_id=END, num_beams=1)
    assert beam_search(step, **search, max_length=9) == [[0, 2, 3, 1]] * 2
    assert beam_search(step, **search, max_length=3) == [[0, 2, 3]] * 2
    assert beam_search(step, **search, max_length=9, min_length=4) != [[0, 2, 3, 1]] * 2


def test_beams_find_a_likelier_sequence_than_greedy_search():
    """Greedy: 0.6 * 0.4 * 1; the better way begins with the less likely 3: 0.4 * 0.9 * 1."""
    step = markov(
        [[0.0, 0.0, 0.6, 0.4, 0.0], [0.2] * 5, [0.0, 0.1, 0.25, 0.25, 0.4], [0.0, 0.9, 0, 0, 0.1], [0, 1, 0, 0, 0]]
    )
    search = dict(batch_size=1, start_id=START, end_id=END, max_length=4, length_penalty=0.0)
    assert beam_search(step, **search, num_beams=1) == [[0, 2, 4, 1]]
    assert beam_search(step, **search, num_beams=2) == [[0, 3, 1]]


def test_a_length_penalty_below_zero_prefers_short_sequences():
    step = markov([[0.0, 0.0, 0.5, 0.5], [0.25] * 4, [0.0, 0.45, 0.1, 0.45], [0.0, 0.99, 0.01, 0.0]])
    lengths = {}
    for penalty in (-3.0, 3.0):
        search = dict(batch_size=1, start_id=START, end_id=END, max_length=8, num_beams=4, length_penalty=penalty)
        lengths[penalty] = len(beam_search(step, **search)[0])
    assert lengths[-3.0] < lengths[3.0]


def test_one_step_by_hand():
    log_probs = torch.tensor([[0.2, 0.45, 0.35], [0.1, 0.1, 0.8]]).log()
    (first, beam, token), second = best_continuations(torch.tensor([-0.1, -2.0]), log_probs, 2)
    assert (beam, token, second[1:]) == (0, 1, (0, 2)), "both children are the better beam's"
    assert first == pytest.approx(-0.1 + torch.tensor(0.45).log().item())


def test_a_length_penalty_is_an_exponent():
    assert [final_score(-2.0, 4, penalty) for penalty in (-1.0, 0.0, 1.0)] == [-8.0, -2.0, -0.5]


def test_recording_beams_does_not_change_the_search():
    step = markov(
        [[0.0, 0.0, 0.6, 0.4, 0.0], [0.2] * 5, [0.0, 0.1, 0.25, 0.25, 0.4], [0.0, 0.9, 0, 0, 0.1], [0, 1, 0, 0, 0]]
    )
    search = dict(batch_size=1, start_id=START, end_id=END, num_beams=2, max_length=4, length_penalty=0.0)
    watched = BeamRecorder(step)
    assert beam_search(watched, **search) == beam_search(step, **search) == [[0, 3, 1]]
    sequences, parents, scores = zip(*watched.rounds[0], strict=True)
    assert sequences == ([0, 2], [0, 3]) and parents == (0, 0)
    assert scores == pytest.approx(torch.tensor([0.6, 0.4]).log().tolist())
    assert all(a[2] >= b[2] for beams in watched.rounds for a, b in zip(beams, beams[1:], strict=False))
    assert watched.path([0, 3, 1]) == [1], "beam 1 of the first round ended in the next"


def test_too_few_beams_or_tokens_raise():
    for settings in (dict(num_beams=0, max_length=5), dict(num_beams=2, max_length=1)):
        with pytest.raises(ValueError, match="at least 1 and 2"):
            beam_search(None, batch_size=1, start_id=START, end_id=END, **settings)


@pytest.fixture(scope="module")
def opt():
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16)
    ids = dict(vocab_size=13, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    opt = OPTForCausalLM(OPTConfig(**sizes, **ids, max_position_embeddings=32, init_std=0.8)).eval()
    head = torch.nn.Linear(16, 13)
    with torch.no_grad():
        head.weight.copy_(opt.lm_head.weight)
        head.bias.zero_()[END] = 3.0  # so that some sequences end by themselves
    opt.lm_head = head
    return opt


@pytest.mark.parametrize("num_beams", [1, 2, 4])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0])
def test_the_same_sequences_as_transformers(opt, num_beams, length_penalty):
    starts = torch.arange(3, 13)  # ten searches, each with its own first token
    lengths = dict(max_length=9, min_length=3, length_penalty=length_penalty)
    theirs = opt.generate(starts[:, None], num_beams=num_beams, do_sample=False, **lengths)
    ours = []
    for start in starts.tolist():
        seen = torch.empty(num_beams, 0, dtype=torch.long)

        @torch.no_grad()
        def step(tokens, parents):
            nonlocal seen
            seen = torch.cat([seen[parents % num_beams], tokens[:, None]], dim=1)
            return opt(seen).logits[:, -1].log_softmax(-1)

        ours += beam_search(step, batch_size=1, start_id=start, end_id=END, num_beams=num_beams, **lengths)
    assert ours == [[token for token in row if token != 2] for row in theirs.tolist()]
    assert 2 <= sum(row[-1] == END for row in ours)
