"""Mixture lists: which recordings are mixed, and how loud.

A list in the format of wsj0-mix holds one mixture a line,

    path1 snr1 path2 snr2 [path3 snr3 ...]

with paths relative to the folder of the corpus and SNRs in dB. The format and
the names of the resulting files are those of MERL's create-speaker-mixtures
(Hershey et al., "Deep clustering: discriminative embeddings for segmentation
and separation", ICASSP 2016).

Authors
 * The speechbrain_kmdanet developers 2026
"""

import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class MixtureEntry:
    """One line of a mixture list.

    Arguments
    ---------
    paths : tuple of str
        The recordings, relative to the folder of the corpus.
    snrs : tuple of float
        The gain of each recording in dB, after its active level has been
        normalised.
    line : int
        Number of the line in its list, from 1; 0 if it comes from no list.

    Example
    -------
    >>> entry = MixtureEntry(("a/01to030v.wav", "b/029o.wav"), (1.2, -1.2))
    >>> entry.name
    '01to030v_1.2_029o_-1.2'
    """

    paths: tuple
    snrs: tuple
    line: int = field(default=0, compare=False)

    @property
    def name(self):
        """Name of the mixture's files without ".wav": stem1_snr1_stem2_..."""
        return "_".join(
            f"{PurePosixPath(path).stem}_{_format_snr(snr)}"
            for path, snr in zip(self.paths, self.snrs)
        )


def read_mixture_list(path, num_spks=None):
    """Reads a mixture list. Blank lines are skipped.

    Arguments
    ---------
    path : str or pathlib.Path
        The list.
    num_spks : int, optional
        The number of recordings that every line must have. By default, that
        of the first line.

    Returns
    -------
    entries : list of MixtureEntry
        The mixtures in the order of the list.

    Raises
    ------
    FileNotFoundError
        If there is no such list.
    ValueError
        If a line is malformed, two lines lead to the same file name, or the
        list is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"mixture list {path} does not exist: give the folder that holds "
            "the lists (mix_2_spk_tr.txt and so on), or fewer splits"
        )
    entries, first_lines = [], {}
    # utf-8-sig: editors on Windows may put a byte order mark in front
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"mixture list {path}, line {number}"
        entry = _parse_line(line, number, where)
        num_spks = num_spks or len(entry.paths)
        if len(entry.paths) != num_spks:
            raise ValueError(
                f"{where}: expected {num_spks} recordings as in the rest of "
                f"the list, got {len(entry.paths)}"
            )
        if entry.name in first_lines:
            raise ValueError(
                f"{where}: would make the file {entry.name}.wav a second "
                f"time, after line {first_lines[entry.name]}: change or "
                "remove one of them"
            )
        first_lines[entry.name] = number
        entries.append(entry)
    if not entries:
        raise ValueError(f"mixture list {path} is empty")
    return entries


def _parse_line(line, number, where):
    """Returns the MixtureEntry of one line; `where` begins the errors."""
    fields = line.split()
    if len(fields) % 2:
        raise ValueError(
            f"{where}: expected pairs of a path and an SNR in dB (path1 snr1 "
            f"path2 snr2), got {len(fields)} fields: {_shorten(line)}"
        )
    snrs = []
    for text in fields[1::2]:
        try:
            snrs.append(float(text))
        except ValueError:
            snrs.append(math.nan)
        if not math.isfinite(snrs[-1]):
            raise ValueError(
                f"{where}: expected a finite number as SNR in dB, got {text!r}"
            )
    return MixtureEntry(tuple(fields[0::2]), tuple(snrs), number)


def _format_snr(snr):
    """Formats an SNR in dB as MATLAB's num2str does.

    That is 4 significant digits more than the integer part's exponent, but at
    least 5 and at most 16, without trailing zeros.
    """
    if snr == 0:
        return "0"  # also for -0.0
    digits = math.floor(math.log10(abs(snr))) + 5
    return f"{snr:.{min(max(digits, 5), 16)}g}"


def _shorten(text, length=60):
    """Returns the text in quotes, cut to a length that fits an error."""
    text = text.strip()
    return repr(text if len(text) <= length else text[:length] + "...")
