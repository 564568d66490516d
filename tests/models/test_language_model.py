"""Frozen language models: losses by hand, padding that changes nothing, streaming that equals generating and stops."""

import warnings

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from blip2_lab.models.decoding import Decoding, Token, choose_token, merge_into_words
from blip2_lab.models.language_model import Text, language_model, pad
from blip2_lab.models.micro import micro_opt_config, micro_t5_config, new_opt, new_t5
from blip2_lab.picturebook.tokenizer import build_tokenizer
from tests.tiny import build_tiny_model, loud

PROMPTS = ["question: what color is the boat? short answer:", "a tree"]
GREEDY = Decoding(num_beams=1)


@pytest.fixture(scope="module", params=["t5", "opt"])
def language(request):
    return loud(build_tiny_model(request.param).language_model)


@pytest.fixture(scope="module")
def visual_prompt(language):
    return torch.randn(2, 8, language.width, generator=torch.Generator().manual_seed(2))


def test_padding_sides():
    right = pad([[5, 6, 7], [8]], 1)
    left = pad([[5, 6, 7], [8]], 1, left=True)
    assert right.ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert left.ids.tolist() == [[5, 6, 7], [1, 1, 8]]
    assert left.mask.tolist() == [[True, True, True], [False, False, True]]


def test_prompts_and_answers_as_ids(language):
    prompt, answer = language.training_texts(["a", "a red"], ["tree", "boat ."])
    ids = {word: language.tokenizer.convert_tokens_to_ids(f"▁{word}") for word in ("a", "red", "tree", "boat")}
    end, pad_id, dot = language.end_token_id, language.pad_token_id, language.tokenizer.convert_tokens_to_ids(".")
    assert answer.ids.tolist()[0][:2] == [ids["tree"], end]
    assert ids["boat"] in answer.ids.tolist()[1] and answer.ids.tolist()[1][-1] == end and dot in answer.ids.tolist()[1]
    if language.model.config.is_encoder_decoder:
        assert prompt.ids.tolist() == [[ids["a"], end, pad_id], [ids["a"], ids["red"], end]]  # right
        assert language.prompt_texts(["a", "a red"]).ids.tolist() == prompt.ids.tolist()
    else:
        start = language.model.config.bos_token_id
        assert prompt.ids.tolist() == [[pad_id, start, ids["a"]], [start, ids["a"], ids["red"]]]  # left
        assert language.training_texts(["", ""], ["tree", "boat"])[0].ids.shape == (2, 0)  # the start is a target, too
        assert language.training_texts(["", ""], ["tree", "boat"])[1].ids[0].tolist() == [start, ids["tree"], end]


def test_training_texts_are_cut_and_prompts_are_not(language):
    long = "red " * 60
    prompt, answer = language.training_texts([long], [long])
    is_decoder = not language.model.config.is_encoder_decoder
    assert prompt.ids.shape[1] == (61 if is_decoder else language.max_text_tokens)
    assert language.prompt_texts([long]).ids.shape[1] == 61
    assert answer.ids.shape[1] == language.max_text_tokens
    assert language.training_texts([""], [long])[1].ids.shape[1] == language.max_text_tokens


def test_cut_answers_are_said(language):
    """In a loop of one's own nothing else says that the ends of long captions are not learned."""
    words = language.max_text_tokens - 1  # and the end token
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        language.training_texts(["a"], ["red " * words])
    with pytest.warns(
        UserWarning, match=r"captions and answers of more than 32 tokens are cut.*raise `max_text_tokens`"
    ):
        language.training_texts(["a"], ["red " * (words + 1)])


def test_a_prompt_of_any_length_leaves_room_for_the_answer(language):
    """A decoder's prompt and answer were cut together: no token of the answer was left, and the loss was NaN."""
    visual_prompt = torch.randn(2, 2, language.width, generator=torch.Generator().manual_seed(0))
    loss, count = language.loss_and_count(visual_prompt, ["red " * 40, "a"], ["tree", "boat"])
    assert loss.isfinite() and count == language.loss_and_count(visual_prompt, ["a", "a"], ["tree", "boat"])[1]


def test_an_unknown_token_is_no_target(language, visual_prompt):
    unknown = language.tokenizer.unk_token_id
    prompt, answer = language.training_texts(["a"] * 2, ["red zebra boat", "tree"])
    assert unknown in answer.ids.tolist()[0]
    targets = language.targets(answer)
    assert torch.equal(targets, answer.mask & (answer.ids != unknown)) and targets.sum() == answer.mask.sum() - 1
    loss, count = language.loss_and_count(visual_prompt, ["a"] * 2, ["red zebra boat", "tree"])
    assert count == targets.sum()
    each = torch.nn.functional.cross_entropy(
        language.answer_logits(visual_prompt, prompt, answer).flatten(0, 1), answer.ids.flatten(), reduction="none"
    )
    assert loss == pytest.approx(each[targets.flatten()].mean().item(), rel=1e-5)


def test_opts_unknown_token_is_its_end_and_stays_a_target(language):
    tokenizer, answer = language.tokenizer, language.training_texts(["a"], ["tree"])[1]
    before = tokenizer.unk_token
    try:
        tokenizer.unk_token = tokenizer.convert_ids_to_tokens(language.end_token_id)
        assert language.targets(answer).all()
    finally:
        tokenizer.unk_token = before


def test_a_space_after_the_prompt_belongs_to_the_answer():
    """With OPT's kind of tokens a space is the beginning of the next word's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=["<pad>", "</s>"], show_progress=False)
    tokens.train_from_iterator(["a photo of a cat"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="</s>", bos_token="</s>")
    opt = new_opt(micro_opt_config(len(tokenizer), "S"))
    opt.config.bos_token_id = 1
    language = language_model(opt, tokenizer, end_token_id=1)
    for spaced, plain in (("a photo of ", "a photo of"), (" ", "")):
        for ours, expected in zip(
            language.pair_texts([spaced], ["cat"]), language.pair_texts([plain], ["cat"]), strict=True
        ):
            assert ours.ids.tolist() == expected.ids.tolist()
    prompt, answer = language.pair_texts(["a photo of "], ["cat"])
    assert [tokenizer.decode(text.ids[0]) for text in (prompt, answer)] == ["</s>a photo of", " cat</s>"]
    assert language.prompt_texts(["a photo of "]).ids.tolist() == prompt.ids.tolist()


def test_loss_is_the_mean_negative_log_probability_of_the_answers(language, visual_prompt):
    prompt, answer = language.training_texts(PROMPTS, ["the boat is red", "yes"])
    logits = language.answer_logits(visual_prompt, prompt, answer)
    assert logits.shape == (*answer.ids.shape, language.model.config.vocab_size)
    log_probabilities = logits.log_softmax(dim=-1)
    picked = [log_probabilities[b, t, answer.ids[b, t]] for b, t in answer.mask.nonzero().tolist()]
    expected = -sum(picked) / len(picked)
    torch.testing.assert_close(language.loss(visual_prompt, PROMPTS, ["the boat is red", "yes"]), expected)


def test_padding_changes_no_answer_logits(language, visual_prompt):
    answers = ["the boat is red", "yes"]
    together = language.answer_logits(visual_prompt, *language.training_texts(PROMPTS, answers))
    for b in range(2):
        prompt, answer = language.training_texts(PROMPTS[b : b + 1], answers[b : b + 1])
        alone = language.answer_logits(visual_prompt[b : b + 1], prompt, answer)[0]
        torch.testing.assert_close(together[b, : len(alone)], alone, atol=2e-5, rtol=1e-4)


def test_the_future_of_an_answer_cannot_change_its_past(language, visual_prompt):
    prompt, answer = language.training_texts(PROMPTS, ["the boat is red", "the boat is blue"])
    changed = Text(answer.ids.clone(), answer.mask)
    changed.ids[:, 2:] = 5
    before, after = (language.answer_logits(visual_prompt, prompt, text) for text in (answer, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-3)


def test_the_visual_prompt_changes_the_logits(language, visual_prompt):
    same = language.loss(visual_prompt, PROMPTS, ["yes", "yes"])
    assert abs(same - language.loss(visual_prompt.flip(0), PROMPTS, ["yes", "yes"])) > 1e-4


def test_frozen_but_gradients_pass(language, visual_prompt):
    before = {name: p.clone() for name, p in language.named_parameters()}
    language.train()
    assert not any(module.training for module in language.modules())
    seen = visual_prompt.clone().requires_grad_()
    language.loss(seen, PROMPTS, ["yes", "no"]).backward()
    assert (seen.grad.abs().sum(dim=(1, 2)) > 0).all()
    assert all(not p.requires_grad and p.grad is None for p in language.parameters())
    assert all(torch.equal(p, before[name]) for name, p in language.named_parameters())


@pytest.mark.parametrize(
    "decoding",
    [
        GREEDY,
        Decoding(num_beams=1, min_new_tokens=6),
        Decoding(num_beams=1, repetition_penalty=1.5, max_new_tokens=12),
        Decoding(num_beams=5, length_penalty=1.0),
    ],
)
@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
def test_streaming_is_generating(language, visual_prompt, decoding):
    generated = language.generate(visual_prompt, PROMPTS, decoding)
    assert len(set(generated)) == 2
    for b, prompt in enumerate(PROMPTS):
        tokens = list(language.stream(visual_prompt[b : b + 1], prompt, decoding))
        assert "".join(token.text for token in tokens) == generated[b]
        assert all(0 < token.probability <= 1 for token in tokens)


def test_probabilities_are_the_models_own(language, visual_prompt):
    """However a token was chosen, and whether it was computed step by step or all at once."""
    prompt = language.prompt_texts(PROMPTS[:1])
    sampling = Decoding(do_sample=True, top_p=0.95, temperature=3.0)
    torch.manual_seed(0)
    steps = list(language.stream_ids(visual_prompt[:1], prompt, sampling))
    at_once = language.probabilities(visual_prompt[:1], prompt, [token_id for token_id, _ in steps])
    torch.testing.assert_close(torch.tensor(at_once), torch.tensor([p for _, p in steps]), atol=1e-5, rtol=1e-3)
    assert language.probabilities(visual_prompt[:1], prompt, []) == []


def test_closing_a_stream_stops_the_model(language, visual_prompt):
    forwards = []
    hook = language.model.get_output_embeddings().register_forward_hook(lambda *_: forwards.append(1))
    try:
        long = Decoding(num_beams=1, max_new_tokens=50, min_new_tokens=50)
        stream = language.stream(visual_prompt[:1], PROMPTS[0], long)
        assert not forwards  # nothing before the first token is asked for
        next(stream), next(stream)
        assert len(forwards) == 2
        stream.close()
        assert len(forwards) == 2
    finally:
        hook.remove()


def test_generate_asks_whether_to_stop(language, visual_prompt):
    answers = iter([False, False, True])
    long = Decoding(num_beams=1, max_new_tokens=50, min_new_tokens=50)
    (ids, _) = language.generate_ids(
        visual_prompt, language.prompt_texts(PROMPTS), long, stop=lambda: next(answers, True)
    )
    assert len(ids) == 3


def test_nucleus_of_one_token_is_greedy(language, visual_prompt):
    narrow = Decoding(do_sample=True, top_p=1e-6)
    assert list(language.stream(visual_prompt[:1], PROMPTS[0], narrow)) == list(
        language.stream(visual_prompt[:1], PROMPTS[0], GREEDY)
    )


def test_choose_by_hand():
    logits = torch.tensor([2.0, 1.0, -1.0, 0.0])
    assert choose_token(logits, [], None, GREEDY) == 0
    assert choose_token(logits, [], 0, GREEDY) == 1  # 0 may not come yet
    penalty = Decoding(num_beams=1, repetition_penalty=2.5)
    assert choose_token(logits, [0, 0], None, penalty) == 1  # 2 / 2.5 < 1
    probabilities = logits.softmax(dim=0)
    assert probabilities[0] < 0.7 < probabilities[0] + probabilities[1]
    drawn = {choose_token(logits, [], None, Decoding(do_sample=True, top_p=0.7)) for _ in range(60)}
    assert drawn == {0, 1}
    assert logits.tolist() == [2.0, 1.0, -1.0, 0.0]  # not changed in place


def test_tokens_merge_into_words():
    tokens = [Token("a", 0.5), Token(" bo", 0.5), Token("at", 0.5), Token(".", 0.1)]
    assert merge_into_words(tokens) == [Token("a", 0.5), Token(" boat.", pytest.approx(0.025))]
    assert merge_into_words([]) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(num_beams=0), "num_beams is 0"),
        (dict(max_new_tokens=0), "max_new_tokens is 0"),
        (dict(min_new_tokens=11), "min_new_tokens is 11"),
        (dict(top_p=0.0), "top_p is 0.0"),
        (dict(temperature=0.0), "temperature is 0.0"),
        (dict(repetition_penalty=0.0), "repetition_penalty is 0.0"),
    ],
)
def test_wrong_settings_raise_with_their_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**wrong)


def test_a_prompt_too_long_is_one_sentence(language, visual_prompt):
    with pytest.raises(ValueError, match="shorten the prompt"):
        language.generate(visual_prompt[:1], ["red " * 600])
    with pytest.raises(ValueError, match="shorten the prompt"):
        next(language.stream(visual_prompt[:1], "red " * 600))


def test_an_incomplete_character_is_held_back_until_its_last_byte(language, visual_prompt, monkeypatch):
    pieces = {1: "é", 2: "�", 3: "ö", 4: "."}

    def decode(ids, skip_special_tokens):
        text = "".join(pieces[i] for i in ids)
        return text.replace("�ö", "ö")

    steps = [(1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6)]
    monkeypatch.setattr(language, "stream_ids", lambda *_: iter(steps))
    monkeypatch.setattr(language, "decode", lambda ids: decode(ids, True))
    assert list(language.stream(visual_prompt[:1], "", GREEDY)) == [Token("é", 0.9), Token("ö", 0.7), Token(".", 0.6)]


def test_micro_models_leave_room_for_the_image_token():
    for config in (micro_t5_config(256), micro_opt_config(256)):
        assert config.vocab_size == 320 and config.vocab_size % 64 == 0
    with pytest.raises(ValueError, match="no micro T5 of size"):
        micro_t5_config(256, "XXL")
    with pytest.raises(ValueError, match="no micro OPT of size"):
        micro_opt_config(256, "XXL")


def test_micro_t5_is_untied_and_unscaled_like_blip2s_flan_t5():
    t5 = new_t5(micro_t5_config(100))
    assert t5.lm_head.weight.data_ptr() != t5.shared.weight.data_ptr()
    assert not t5.config.scale_decoder_outputs and t5.config.dense_act_fn == "gelu"
    opt = new_opt(micro_opt_config(100))
    assert opt.lm_head.weight.data_ptr() == opt.get_input_embeddings().weight.data_ptr()


def test_end_token_defaults_to_the_models_own():
    opt = new_opt(micro_opt_config(60))
    assert language_model(opt).end_token_id == 2
    assert language_model(opt, end_token_id=7).end_token_id == 7
    opt.config.eos_token_id = [3, 4]
    assert language_model(opt).end_token_id == 3


def test_without_a_tokenizer_text_is_refused():
    language = language_model(new_opt(micro_opt_config(60)))
    with pytest.raises(ValueError, match="no tokenizer"):
        language.generate(torch.zeros(1, 2, language.width), ["a"])


def test_start_and_end_tokens_are_added_where_the_tokenizer_adds_none(language):
    """Some OPT tokenizers add no beginning of text, and a T5 prompt needs its end."""
    bare = language_model(language.model, SimpleTokenizer())
    rows = bare._encode(["x"])
    config = language.model.config
    assert rows == ([[7, config.eos_token_id]] if config.is_encoder_decoder else [[config.bos_token_id, 7]])


class SimpleTokenizer:
    def __call__(self, texts, truncation, max_length):
        return {"input_ids": [[7] for _ in texts]}


class LetterTokenizer:
    def __call__(self, texts, truncation, max_length):
        return {"input_ids": [[ord(letter) for letter in text][:max_length] for text in texts]}


def small_llama(**ids) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(vocab_size=1300, **sizes, **ids))


@pytest.mark.parametrize(
    "ids",
    [
        dict(pad_token_id=None, bos_token_id=1, eos_token_id=1),  # LLaMA and GPT-2 have no padding token
        dict(pad_token_id=-1, bos_token_id=1, eos_token_id=[1, 3]),
        dict(pad_token_id=0, bos_token_id=None, eos_token_id=1),  # Qwen has none that begins a text
    ],
)
def test_language_models_without_a_padding_or_a_start_token(ids):
    """And whose positions would count padding: a row of a batch has the loss and the answer that it has alone."""
    simple = language_model(loud(small_llama(**ids)), LetterTokenizer())
    assert simple.pad_token_id in (0, 1)
    prompts, answers, image = ["a", "what is this"], ["red boat", "x"], torch.randn(2, 4, 64)
    together = simple.losses_of_each(image, prompts, answers)[0]
    first, state = simple.first_logits(image, simple.prompt_texts(prompts))
    second, _ = simple.next_logits(torch.tensor([[7], [8]]), state)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        one, texts = image[row : row + 1], simple.prompt_texts([prompt])
        torch.testing.assert_close(simple.losses_of_each(one, [prompt], [answer])[0], together[row : row + 1])
        alone, state = simple.first_logits(one, texts)
        torch.testing.assert_close(alone[0], first[row], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            simple.next_logits(torch.tensor([[7 + row]]), state)[0][0], second[row], atol=1e-4, rtol=1e-4
        )
        streamed = [token for token, _ in simple.stream_ids(one, texts, GREEDY)]
        assert streamed == simple.generate_ids(image, simple.prompt_texts(prompts), GREEDY)[row]


def test_what_is_no_language_model_or_has_another_tokenizer_is_told():
    with pytest.raises(ValueError, match="LlamaForCausalLM, has no end token: pass end_token_id"):
        language_model(small_llama(eos_token_id=None))
    with pytest.raises(ValueError, match="LlamaModel, generates no text"):
        language_model(LlamaModel(small_llama(eos_token_id=1).config))
    small = language_model(small_llama(eos_token_id=1, bos_token_id=1), build_tokenizer("opt"))
    small.tokenizer.add_tokens([f"zorp{number}" for number in range(300)])
    with pytest.raises(ValueError, match="token .*, and this language model has 1300 embeddings"):
        small.prompt_texts(["a zorp299"])
