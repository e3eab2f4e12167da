"""The one exception that stands for bad usage or bad input, and the check that raises it for an option.

Everything a user can put right (a missing folder, a class with one image, an unknown option) raises
:class:`InputError`; the command line turns it into one line on stderr and exit code 2. Whatever else escapes is a
defect of ours and keeps its traceback.
"""


class InputError(ValueError):
    """Bad usage or bad input. The message is one line that names what is wrong, where, and how to put it right."""


def check(good: bool, name: str, value: object, wanted: str) -> None:
    """Stop at an option that is not good.

    Raises:
        InputError: naming the option, its value and what it must be.
    """
    if not good:
        raise InputError(f"--{name} is {value!r}: it must be {wanted}")
