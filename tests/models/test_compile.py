"""A compiled decoder: the same ids; with hooks or gradients the eager path runs."""

import shutil

import pytest
import torch

import blip2_lab
from blip2_lab.checkpoints.load import save
from blip2_lab.interpret.attention_maps import record_attention
from blip2_lab.models.compile import compile_decoder
from blip2_lab.models.decoding import Decoding
from tests.tiny import build_tiny_model, loud

PROMPT = "question: what color is the boat? short answer:"
GREEDY = Decoding(num_beams=1, max_new_tokens=8, min_new_tokens=8)
BEAMS = Decoding(num_beams=3, max_new_tokens=8, min_new_tokens=8)


class Counting:
    """A backend that compiles nothing and counts how often the compiled function runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self, graph, inputs):
        def run(*args):
            self.runs += 1
            return graph.forward(*args)

        return run


def visual_prompt(language, rows=1):
    return torch.randn(rows, 8, language.width, generator=torch.Generator().manual_seed(2))


def answers(language):
    """Ids streamed, ids by beams, and two rows at once."""
    one, two = (language.prompt_texts([PROMPT] * rows) for rows in (1, 2))
    return [
        [token for token, _ in language.stream_ids(visual_prompt(language), one, GREEDY)],
        language.generate_ids(visual_prompt(language), one, BEAMS),
        language.generate_ids(visual_prompt(language, 2), two, GREEDY),
    ]


def maps(language):
    """The decoder's inputs at each step of one answer."""
    with record_attention(language) as found:
        list(language.stream_ids(visual_prompt(language), language.prompt_texts([PROMPT]), GREEDY))
    return found.steps("language_decoder", "self")


def tiny(kind):
    torch.compiler.reset()
    return loud(build_tiny_model(kind).language_model)


@pytest.fixture(scope="module", params=["t5", pytest.param("opt", marks=pytest.mark.slow)])
def case(request):
    """A compiled language model, its backend, and its answers before compilation."""
    language, backend = tiny(request.param), Counting()
    before = answers(language), maps(language)
    compile_decoder(language, backend)
    return language, backend, *before


@pytest.mark.slow
def test_the_same_ids_by_compiled_steps(case):
    language, backend, expected, _ = case
    backend.runs = 0
    assert answers(language) == expected
    steps = GREEDY.max_new_tokens - 2  # all but the first token and the one after it
    assert backend.runs >= 3 * steps


def test_attention_maps_are_recorded_with_a_compiled_decoder(case):
    language, backend, _, expected = case
    backend.runs = 0
    torch.testing.assert_close(maps(language), expected)
    assert backend.runs == 0


def test_gradients_and_likelihoods_run_on_the_eager_path(case):
    language, backend, *_ = case
    backend.runs = 0
    language.log_likelihood(visual_prompt(language), [PROMPT], ["the boat is red"])
    seen = visual_prompt(language).requires_grad_()
    language.loss(seen, [PROMPT], ["red"]).backward()
    assert seen.grad.abs().sum() > 0 and backend.runs == 0


def test_without_a_compiler_an_error_is_raised_and_the_decoder_is_unchanged():
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    language = tiny("t5")
    expected = answers(language)
    with pytest.raises(ValueError, match=r"cannot be compiled here \(.*no compiler here.*C\+\+ compiler"):
        compile_decoder(language, broken)
    assert answers(language) == expected


def test_a_model_without_a_language_model_has_nothing_to_compile(tmp_path):
    save(blip2_lab.load("micro").stage1, tmp_path)
    with pytest.raises(ValueError, match="no decoder to compile"):
        blip2_lab.load(tmp_path, compile=True)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile takes a C++ compiler")
@pytest.mark.parametrize("kind", ["t5", "opt"])
def test_the_real_compiler_gives_the_same_ids(kind):
    language = tiny(kind)
    expected = answers(language)
    compile_decoder(language)
    assert answers(language) == expected
