"""Errors that a student's function raises: told apart from the check's own, and told in a sentence.

`guarded` is where to begin: the student's function, whose errors are told apart wherever it is called.
`error_message` is the sentence that tells one.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import builtins
import difflib
import re
import traceback
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from blip2_lab.teaching.checks.values import supported

#: What a function may raise that is given, or has given, something strange.
STRANGE = RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError
#: An error, a word of its message, and what it tells about the function.
_HINTS = (
    (ZeroDivisionError, "", "What you divide by is 0 in this case: it needs an answer of its own."),
    (IndexError, "", "There is no such place in this case: is a number fixed that depends on the input?"),
    (RuntimeError, "shapes cannot be multiplied", "Is it another tensor that belongs here, or is a matrix "
     "transposed, or multiplied from the wrong side?"),
    (RuntimeError, "must match the size", "Two sizes do not fit: is a number fixed that depends on the input, or is a "
     "dimension missing, in the wrong place, or cut?"),
    (RuntimeError, "is invalid for input of size", "Is a size fixed that depends on the input?"),
    (RuntimeError, "Sizes of tensors must match", "What is put together differs in another dimension than `dim`."),
    (RuntimeError, "Boolean value of Tensor", "`if`, `and`, `or` and `not` ask one question of a whole tensor: write "
     "`is not None`, or `&`, `|` and `~`, or `.any()` or `.all()`."),
    (TypeError, "NoneType", "Something is None in this case: look at what may be left out."),
)  # fmt: skip
_INSIDE_TORCH = re.compile(r"\s*^\s*(?:Exception raised from |frame #\d|C\+\+ CapturedTraceback)", re.MULTILINE)
_NEAR = 0.8  #: from here on two names are near each other, of 1


class AnswerError(Exception):
    """An error raised by the student's code, apart from errors of the check itself."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


def guarded(answer: Callable) -> Callable:
    """The student's function. Its errors, `exit()` included, are raised as AnswerError, and what it returns is safe to
    compare. Ctrl+C stays what it is."""

    def call(*args: Any, **options: Any) -> Any:
        try:
            return supported(answer(*args, **options))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise AnswerError(error) from error

    return call


def is_stub(error: BaseException, answer: Callable) -> bool:
    """Whether it is the exercise's own `raise NotImplementedError`, not one from inside a library."""
    if not isinstance(error, NotImplementedError):
        return False
    code = _code_of(answer)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return code is None or last.name == code.co_name


def error_message(error: BaseException, answer: Callable) -> str:
    """An exception as a sentence, with the line of the student's function that raised it."""
    if isinstance(error, SystemExit):
        return "Your function ends the whole program (exit or quit): return an answer instead."
    code, text = _code_of(answer), text_of(error)
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.name == code.co_name]
    line = f" in the line `{here[-1].line}`" if here and here[-1].line else ""
    told = f"Your function stops with {type(error).__name__}{line}: {text}"
    hint = next((hint for kind, word, hint in _HINTS if isinstance(error, kind) and word in text), _near_name(error))
    return f"{told.removesuffix('.')}. {hint}" if hint else told


def text_of(error: BaseException) -> str:
    """What an error says, without the calls inside of torch that may follow."""
    try:
        text = str(error)
    except Exception:  # of the student's own class of errors
        text = ""
    return _INSIDE_TORCH.split(text, maxsplit=1)[0].strip() or "no message"


def _near_name(error: BaseException) -> str:
    """The known name that a misspelt one is probably meant to be, in a question, or ""."""
    if not isinstance(error, NameError) or not error.name or error.__traceback__ is None:
        return ""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    own = [name for name in (*frame.f_code.co_varnames, *frame.f_code.co_freevars) if name in frame.f_locals]
    for names in (own, [*frame.f_globals, *vars(builtins)]):
        if near := difflib.get_close_matches(error.name, names, 1, _NEAR):
            return f"Is `{near[0]}` meant?"
    return ""


def _code_of(answer: Callable) -> types.CodeType | None:
    """The code of a function, or of what a partial, a method or an object calls. None where it is not Python's."""
    if isinstance(answer, partial):
        answer = answer.func
    if isinstance(answer, types.MethodType):
        answer = answer.__func__
    if not isinstance(answer, types.FunctionType):
        answer = type(answer).__call__
    return answer.__code__ if isinstance(answer, types.FunctionType) else None


def or_empty(describing: Callable[..., str | None], *args: Any) -> str:
    """What a description says, or "" where it says nothing or the answer is too strange for it: that is no fault of
    the check's."""
    try:
        return describing(*args) or ""
    except STRANGE:
        return ""
