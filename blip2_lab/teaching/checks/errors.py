"""Errors that a student's function raises: told apart from the check's own, and told in a sentence.

`students_code` is where to begin: an error in it is the student's. `error_message` is its sentence.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: What a function may raise that is given, or has given, something strange.
STRANGE = RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError
#: An error, a word of its message, and what it tells about the function.
_HINTS = (
    (ZeroDivisionError, "", "What you divide by is 0 in this case: it needs an answer of its own."),
    (IndexError, "", "There is no such place in this case: is a number fixed that depends on the input?"),
    (RuntimeError, "shapes cannot be multiplied", "Is a matrix transposed, or multiplied from the wrong side?"),
    (RuntimeError, "must match the size", "Two sizes do not fit: is a number fixed that depends on the input, or is a "
     "dimension missing, in the wrong place, or cut?"),
    (RuntimeError, "is invalid for input of size", "Is a size fixed that depends on the input?"),
    (RuntimeError, "Sizes of tensors must match", "What is put together differs in another dimension than `dim`."),
    (TypeError, "NoneType", "Something is None in this case: look at what may be left out."),
)  # fmt: skip


class AnswerError(Exception):
    """An error raised by the student's code, apart from errors of the check itself."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def students_code() -> Iterator[None]:
    """Errors in here, `exit()` included, are the student's: they are raised as AnswerError."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise AnswerError(error) from error


def guarded(answer: Callable) -> Callable:
    """The student's function; its errors are raised as AnswerError."""

    def call(*args: Any, **options: Any) -> Any:
        with students_code():
            return answer(*args, **options)

    return call


def is_stub(error: BaseException, answer: Callable) -> bool:
    """Whether it is the exercise's own `raise NotImplementedError`, not one from inside a library."""
    if not isinstance(error, NotImplementedError):
        return False
    code = getattr(answer, "__code__", None)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return code is None or last.name == code.co_name


def error_message(error: BaseException, answer: Callable) -> str:
    """An exception as a sentence, with the line of the student's function that raised it."""
    if isinstance(error, SystemExit):
        return "Your function ends the whole program (exit or quit): return an answer instead."
    code = getattr(answer, "__code__", None)
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.name == code.co_name]
    line = f" in the line `{here[-1].line}`" if here and here[-1].line else ""
    told = f"Your function stops with {type(error).__name__}{line}: {str(error).strip() or 'no message'}"
    hint = next((hint for kind, word, hint in _HINTS if isinstance(error, kind) and word in str(error)), "")
    return f"{told.removesuffix('.')}. {hint}" if hint else told


def or_empty(describing: Callable[..., str | None], *args: Any) -> str:
    """What a description says, or "" where it says nothing or the answer is too strange for it: that is no fault of
    the check's."""
    try:
        return describing(*args) or ""
    except STRANGE:
        return ""
