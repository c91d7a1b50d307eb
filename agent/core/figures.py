"""Two figures as text, with as many digits as it takes to tell them apart."""

MAX_DIGITS = 15  # after the point; below that, floats of our units are noise


def tell_apart(measured: float, limit: float, digits: int) -> tuple[str, str]:
    """Return what was measured and its limit, which never read the same by rounding.

    Args:
        measured: In some unit.
        limit: In the same.
        digits: After the point, where those suffice.

    >>> tell_apart(12.1, 10, 3), tell_apart(0.0014, 0.001, 3)
    (('12.100', '10.000'), ('0.0014', '0.0010'))
    """
    for count in range(digits, MAX_DIGITS):
        texts = f"{measured:.{count}f}", f"{limit:.{count}f}"
        if texts[0] != texts[1]:
            return texts
    return str(measured), str(limit)
