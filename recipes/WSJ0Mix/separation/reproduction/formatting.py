"""Numbers and tables as text.

Authors
 * The speechbrain_kmdanet developers 2026
"""

NOTHING = "–"


def format_figure(figure, signed=False):
    """A mean with its interval as text.

    Arguments
    ---------
    figure : dict
        mean and ci95, see summarise.
    signed : bool
        Whether a positive mean has a sign, too.

    Returns
    -------
    str
        For example "5.92 ± 0.27", or a dash.
    """
    if figure["mean"] is None:
        return NOTHING
    mean = f"{figure['mean']:{'+' if signed else ''}.2f}".replace("-", "−")
    return f"{mean} ± {figure['ci95']:.2f}"


def format_number(value, digits=2):
    """A number as text.

    Arguments
    ---------
    value : float
        The number, or None.
    digits : int
        Digits behind the point.

    Returns
    -------
    str
        The number, or a dash.
    """
    return NOTHING if value is None else f"{value:.{digits}f}"


def format_hours(hours):
    """Hours of mixtures as text.

    Arguments
    ---------
    hours : float
        Number of hours.

    Returns
    -------
    str
        With three significant digits, or whole hours.
    """
    return f"{hours:.0f} h" if hours >= 99.95 else f"{hours:.3g} h"


def format_time(seconds):
    """A time as text.

    Arguments
    ---------
    seconds : float
        Time in seconds.

    Returns
    -------
    str
        In seconds, minutes, or hours and minutes.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_markdown(header, lines):
    """A table as Markdown.

    Arguments
    ---------
    header : list of str
        Names of the columns.
    lines : list of list of str
        Texts of the lines.

    Returns
    -------
    str
        Lines of the same width.
    """
    lines = [header, *lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = [
        " | ".join(text.ljust(width) for text, width in zip(line, widths))
        for line in lines
    ]
    rows.insert(1, " | ".join("-" * width for width in widths))
    return "".join(f"| {row} |\n" for row in rows)
