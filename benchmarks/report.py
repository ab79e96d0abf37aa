"""Writes what was measured, with what, and with which command.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "WSJ0Mix" / "separation"))
from reproduction.formatting import format_markdown  # noqa: E402
from reproduction.provenance import describe_environment  # noqa: E402
from reproduction.report import hide_paths  # noqa: E402


def write_report(path, title, parts, device="cpu"):
    """Prints and writes a report.

    Arguments
    ---------
    path : pathlib.Path
        Markdown file.
    title : str
        Its title.
    parts : list
        Paragraphs, and tables as pairs of header and lines.
    device : str
        What it was measured on.
    """
    about = describe_environment(device)
    script, *arguments = sys.argv
    script = f"benchmarks/{Path(script).name}"
    command = hide_paths(["python", script, *arguments])
    texts = [
        part if isinstance(part, str) else format_markdown(*part).rstrip()
        for part in parts
    ]
    text = "\n\n".join(
        [
            f"# {title}",
            *texts,
            f"Measured on {about['date']}, {about['machine']}; "
            f"{about['versions']}; commit {about['commit']}; with",
            f"```shell\n{command}\n```\n",
        ]
    )
    print(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}")
