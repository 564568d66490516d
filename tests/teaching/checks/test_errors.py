"""What a student's function may do and return: no check takes an error of it for its own, and the error is told."""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.errors import text_of
from blip2_lab.teaching.checks.values import Unsupported, supported
from blip2_lab.teaching.checks.verdicts import FAILED

NAMES = (
    "unimodal_mask", "next_word_loss", "itc_similarity", "num_features", "split_heads", "freeze", "pad", "nucleus",
    "sample_negatives", "training_memory", "hold_out_pictures", "answer_loss", "gated_parameters",
)  # fmt: skip


class OwnError(Exception):
    def __str__(self):
        raise ValueError("no text")


class Quits(BaseException):
    pass


def raising(error):
    raise error


# Each makes a function of the library's one: a function with a source, that stops.
def misspelt(solution):
    def answer(*args, **options):
        value = solution(*args, **options)
        return vaule + value  # noqa: F821

    return answer


def not_assigned(solution):
    def answer(*args, **options):
        if len(args) > 99:
            value = solution(*args, **options)
        return value

    return answer


def no_such_module(solution):
    def answer(*args, **options):
        return importlib.import_module("torchh").exp(solution(*args, **options))  # as `import torchh` ends

    return answer


def no_such_function(solution):
    def answer(*args, **options):
        from torch import sofmax

        return sofmax(solution(*args, **options))

    return answer


def nothing_left(solution):
    def answer(*args, **options):
        return next(iter([]))

    return answer


def own_error(solution):
    def answer(*args, **options):
        raise OwnError

    return answer


def own_base_error(solution):
    def answer(*args, **options):
        raise Quits("enough")

    return answer


def leaves(solution):
    def answer(*args, **options):
        exit()

    return answer


def calls_itself(solution):
    def answer(*args, **options):
        return answer(*args, **options) + 1

    return answer


def stops_later(solution):
    """In a call that is made only to tell what is wrong."""
    count = iter(range(10**6))

    def answer(*args, **options):
        if next(count) > 4:
            raise OwnError
        return [solution(*args, **options), 1]

    return answer


STOPPING = {
    misspelt: "stops with NameError in the line `return vaule",
    not_assigned: "stops with UnboundLocalError",
    no_such_module: "stops with ModuleNotFoundError",
    no_such_function: "stops with ImportError",
    nothing_left: "stops with StopIteration in the line `return next(iter([]))`",
    own_error: "stops with OwnError in the line `raise OwnError`: no message",
    own_base_error: "stops with Quits in the line `raise Quits",
    leaves: "ends the whole program",
    calls_itself: "stops with RecursionError",
    stops_later: "",
}


@pytest.mark.parametrize("name", NAMES)
def test_an_error_of_the_students_function_is_told_as_its_own(name):
    check = getattr(checks, name)
    for make, told in STOPPING.items():
        verdict = check(make(check.solution))
        assert verdict.status == FAILED and told in verdict.message, (make, verdict)


def test_an_error_of_a_function_in_a_file_is_told_with_its_line(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text("def mask(num_query_tokens, text_mask):\n    size = num_query_tokens\n    return text_maks[size]\n")
    spec = importlib.util.spec_from_file_location("answers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    message = checks.unimodal_mask(module.mask).message
    assert "stops with NameError in the line `return text_maks[size]`" in message
    assert "name 'text_maks' is not defined. Is `text_mask` meant?" in message


def test_a_known_name_near_a_misspelt_one_is_told():
    def of_the_module(patches, size):
        return torhc.ones(patches)  # noqa: F821

    def of_python(patches, size):
        return lenn(patches)  # noqa: F821

    def of_nothing(patches, size):
        return words  # noqa: F821, `ord` is not near enough

    assert "Is `torch` meant?" in checks.num_features(of_the_module).message
    assert "Is `len` meant?" in checks.num_features(of_python).message
    assert "meant?" not in checks.num_features(of_nothing).message


def test_the_line_is_told_of_what_is_called_in_another_way_than_a_function():
    def answer(image_size, patch_size):
        return image_size / nothing  # noqa: F821

    class Counts:
        def __call__(self, image_size, patch_size):
            return image_size / nothing  # noqa: F821

        def method(self, image_size, patch_size):
            return image_size / nothing  # noqa: F821

    for called in (functools.partial(answer), Counts(), Counts().method):
        assert "in the line `return image_size / nothing" in checks.num_features(called).message


def test_ctrl_c_stays_what_it_is():
    with pytest.raises(KeyboardInterrupt):
        checks.num_features(lambda *args: raising(KeyboardInterrupt()))


def test_calls_inside_of_torch_are_not_told():
    text = (
        "Expected all tensors to be dense.\nGot 2.\nException raised from check at ../aten/src/a.cpp:1 (most recent "
        "call first):\nframe #0: c10::Error::Error(c10::SourceLocation) + 0x57 (0x7f in libc10.so)\nframe #1: ?"
    )
    assert text_of(RuntimeError(text)) == "Expected all tensors to be dense.\nGot 2."
    assert text_of(RuntimeError(text.split("\n", 3)[3])) == "no message"
    message = checks.num_features(lambda *args: raising(RuntimeError(text))).message
    assert "to be dense" in message and "frame #" not in message and "Exception raised" not in message


def test_calls_inside_of_torch_are_not_told_of_a_gradient():
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            raise NameError("no gradient\nframe #0: c10::Error")

    message = checks.next_word_loss(lambda *args: Fails.apply(checks.next_word_loss.solution(*args))).message
    assert message == "The value is right, but its gradient cannot be computed: no gradient"


# --- Changes in place -----------------------------------------------------------------------------------------------


def labels_out_of_bounds(logits, labels):
    loss = F.cross_entropy(logits.transpose(1, 2), labels)
    labels.numpy()[:] = logits.shape[-1]  # the loss keeps them for its gradient
    return loss


def no_samples_left(samples):
    value = checks.interleave_pictures.solution(samples)
    samples.clear()
    return value


def no_module_left(attention, *args):
    value = checks.cached_step.solution(attention, *args)
    vars(attention).clear()
    return value


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("next_word_loss", labels_out_of_bounds),
        ("interleave_pictures", no_samples_left),
        ("cached_step", no_module_left),
    ],
)
def test_an_input_that_nothing_can_be_done_with_any_more_is_told_as_changed(name, answer):
    verdict = getattr(checks, name)(answer)
    assert verdict.status == FAILED and "changes its input in place" in verdict.message, verdict


def test_a_module_without_its_parts_is_no_fault_of_the_check():
    def empties(module):
        del module[1]
        return module.eval()

    verdict = checks.freeze(empties)
    assert verdict.status == FAILED and "stops with" in verdict.message, verdict


def test_a_function_of_torch_that_is_replaced_for_a_while_is_there_afterwards():
    allclose = torch.allclose

    def replaces(x, num_heads):
        torch.allclose = None
        try:
            return (checks.split_heads.solution(x, num_heads).cumsum(-1) + 1) * 3
        finally:
            torch.allclose = allclose

    try:
        assert checks.split_heads(replaces).status == FAILED
        assert torch.allclose is allclose
    finally:
        torch.allclose = allclose


# --- Strange values -------------------------------------------------------------------------------------------------


class Hostile:
    def __eq__(self, other):
        raise OwnError

    def __repr__(self):
        raise OwnError

    __hash__ = None


class HostileDict(dict):
    def keys(self):
        raise OwnError


class HostileTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *args, **options):
        raise OwnError


class Silent:
    """An object that is called, and cannot be looked at."""

    def __getattr__(self, name):
        raise OwnError

    def __call__(self, *args):
        return [self]


ENDLESS: list = []
ENDLESS.append(ENDLESS)
STRANGE_VALUES = [
    Hostile(), [Hostile()], (Hostile(), Hostile()), {"a": Hostile()}, {Hostile: 1}, HostileDict(a=1), ENDLESS,
    torch.zeros(2).as_subclass(HostileTensor), torch.eye(2).to_sparse(), torch.zeros(2, device="meta"), range(10**9),
    ValueError("returned"), ValueError, len, (1, Hostile()),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_strange_value_is_refused(name):
    for value in STRANGE_VALUES:
        verdict = getattr(checks, name)(lambda *args, value=value, **options: value)
        assert verdict.status == FAILED and "stops with" not in verdict.message, verdict
    assert getattr(checks, name)(Silent()).status == FAILED


def test_a_value_of_another_kind_is_told_with_what_it_probably_lacks():
    def gives(image_size, patch_size):
        yield 1

    async def waits(image_size, patch_size):
        return 1

    assert "is there a `yield`" in checks.num_features(gives).message
    assert "in place of `async def`" in checks.num_features(waits).message
    assert "is it to be called?" in checks.num_features(lambda *args: gives).message


def test_usual_values_are_left_as_they_are():
    part = torch.zeros(2)
    for value in (1, 2.5, "a", None, part, [part, 1], (part, [part]), {"a": part}, {1, 2}, torch.nn.Linear(1, 1)):
        assert supported(value) is value or supported(value) == value
    pair = torch.zeros(2, 2).max(0)
    assert supported(pair) is pair
    assert supported(np.array([None, "a"])) == [None, "a"]
    assert supported([object()]) == [Unsupported("something of the type object")]


def test_a_list_that_contains_itself_in_several_places_is_soon_looked_through():
    value: list = []
    value += [(value, value, value)] * 4
    assert isinstance(supported(value)[0][0], Unsupported)


def test_a_return_in_a_loop_is_told():
    def early(parameters, trained):
        for _ in trained:
            return dict.fromkeys(("frozen weights", "trained weights", "gradients", "optimizer"), 0.0)

    assert "in a loop or an `if`" in checks.training_memory(early).message
