"""A page on which recordings are separated, heard and looked at.

It is served by this machine alone: the browser is told to ask nobody else, and
what was uploaded or made is removed.
"""

import os
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import soundfile
import torch
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response
from torch import Tensor

from speechbrain_kmdanet import EXAMPLE
from speechbrain_kmdanet.dataio.audio import name_path
from speechbrain_kmdanet.dataio.recording import read_blocks
from speechbrain_kmdanet.errors import UserError, one_line
from speechbrain_kmdanet.inference.batch import AUTO, Batch, make_batch
from speechbrain_kmdanet.inference.loading import Source
from speechbrain_kmdanet.inference.recordings import (
    MOST,
    SeparatedRecording,
    separate_recording,
)
from speechbrain_kmdanet.inference.separation import AttractorSeparation
from speechbrain_kmdanet.lobes.models.danet import DANet
from speechbrain_kmdanet.nnet.loss.separation import best_permutation
from speechbrain_kmdanet.processing.bands import resample
from speechbrain_kmdanet.utils import plots, plots_embeddings

SHOWN = 10  # seconds of the recording in the pictures
UPLOAD = "100mb"
WAITING = 20  # people in the queue
SWEEP, KEPT = 600, 3600  # seconds between removals, and of a file
PICTURES = ("turns", "tracks", "embeddings")
HEADERS = ["talker", "from (s)", "to (s)"]
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:"
ABOUT = """# Who says what
Separates the talkers of a recording of one microphone: one track a talker.
Recordings stay on the machine that serves this page."""


class PageResult(NamedTuple):
    """What the page shows of a recording.

    Arguments
    ---------
    mixture : pathlib.Path
        What was separated: the mean of the channels.
    recording : SeparatedRecording
        The tracks, the background and who speaks when.
    summary : str
        How many talkers there are and, where they are counted, how sure.
    pictures : dict
        PNG files: "turns", "tracks" and, if there are any, "embeddings".
    archive : pathlib.Path
        ZIP file of the tracks and the background.
    """

    mixture: Path
    recording: SeparatedRecording
    summary: str
    pictures: dict[str, Path]
    archive: Path


def separate_for_page(
    separator: AttractorSeparation,
    path: str | Path,
    num_spks: int | str,
    folder: str | Path,
) -> PageResult:
    """Separates a recording, and draws its first 10 seconds.

    Arguments
    ---------
    separator : AttractorSeparation
        The separator.
    path : str or pathlib.Path
        The recording: of any rate, length and number of channels.
    num_spks : int or str
        Number of talkers, or "auto".
    folder : str or pathlib.Path
        Where to write.

    Returns
    -------
    PageResult
        Tracks, pictures and all of it as one file.

    Raises
    ------
    UserError
        If the recording cannot be separated.
    OSError
        If a file cannot be written.
    """
    path, folder = Path(path), Path(folder)
    made = separate_recording(
        separator, path, folder, num_spks, background=True, progress=False
    )
    parts = [file for file in (*made.tracks, made.background) if file]
    archive = folder / f"{path.stem}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for part in parts:
            file.write(part, part.name)
    mixture = folder / f"{path.stem}_mixture.wav"
    start = _write_mixture(path, mixture, soundfile.info(parts[0]).subtype)
    rate: int = soundfile.info(mixture).samplerate
    own_rate: int = separator.hparams.sample_rate
    heard = torch.from_numpy(resample(start, rate, own_rate)).float()
    batch = make_batch(separator.eval().mods, heard[None], None, own_rate)
    read = [soundfile.read(file, SHOWN * rate)[0] for file in made.tracks]
    tracks = np.stack(read, 1)
    pictures = {name: folder / f"{name}.png" for name in PICTURES}
    count = len(made.tracks)
    plots.plot_turns(made.turns, count, made.seconds, pictures["turns"])
    own = torch.from_numpy(resample(tracks, rate, own_rate)).float()
    masks = None
    with suppress(UserError):  # silence has no embeddings to look at
        masks = _draw_embeddings(batch, own, pictures["embeddings"])
    plots.plot_tracks(
        torch.from_numpy(start).float(),
        torch.from_numpy(tracks).float(),
        rate,
        pictures["tracks"],
        masks,
        own_rate,
    )
    summary = _summarise(separator, heard, num_spks, made)
    pictures = {name: file for name, file in pictures.items() if file.exists()}
    return PageResult(mixture, made, summary, pictures, archive)


def _write_mixture(path: Path, mixture: Path, subtype: str) -> np.ndarray:
    """Writes what is separated of a recording; its beginning [L]."""
    start, length = [], 0
    with read_blocks(path) as recording:
        rate = recording.sample_rate
        with soundfile.SoundFile(mixture, "w", rate, 1, subtype) as output:
            for block in recording.blocks():
                output.write(block)
                start.append(block[: max(0, SHOWN * rate - length)])
                length += len(block)
    return np.concatenate(start)


@torch.no_grad()
def _draw_embeddings(batch: Batch, tracks: Tensor, path: Path) -> Tensor | None:
    """Draws embeddings and attractors, if there are any; masks [K, F, T].

    The masks are in the order of the tracks [L, K], at the separator's rate.
    """
    masknet, count = batch.modules.masknet, tracks.shape[1]
    if not isinstance(masknet, DANet):
        return None
    separation = batch.separate(count, outputs=["masks", "embeddings"])
    embeddings, energies = masknet.embed(
        separation.spectrum, None, separation.embeddings
    )
    found = masknet.infer_attractors(
        embeddings, energies * masknet.speech_shares(embeddings), count
    )
    # Now the masks are in the order of the attractors, not loudest first.
    separation = batch.separate(count, attractors=found, embeddings=embeddings)
    ours = separation.masked_magnitudes[0].flatten(1)  # [K, F · T]
    theirs = batch.modules.encoder(tracks.T.to(batch.mix)).abs().flatten(1)
    order = best_permutation(torch.cdist(theirs, ours)[None])[0]
    masks = separation.masks[:, 0][order]  # [K, F, T]
    view = plots_embeddings.view_embeddings(
        embeddings[0],
        energies[0],
        masks.transpose(1, 2).flatten(1),
        attractors=found[0][order],
    )
    plots_embeddings.plot_embeddings(
        view, path, f"Embeddings of the first {SHOWN} s"
    )
    return masks.cpu()


def _summarise(
    separator: AttractorSeparation,
    heard: Tensor,
    num_spks: int | str,
    made: SeparatedRecording,
) -> str:
    """How many talkers there are, and how sure that is."""
    if not made.turns:
        return "**Nobody** was heard speaking."
    count = len(made.tracks)
    talkers = "1 talker" if count == 1 else f"{count} talkers"
    if num_spks != AUTO:
        return f"**{talkers}**, as asked for."
    if not heard.any():
        return f"**{talkers}** counted, who are silent at first."
    chances = separator.count_batch(heard[None]).chances[0].tolist()
    each = [f"{n}: {100 * chance:.0f} %" for n, chance in enumerate(chances, 1)]
    return (
        f"**{talkers}** counted. How likely each number is in the first "
        f"{SHOWN} s: {', '.join(each)}."
    )


def make_page(separator: AttractorSeparation) -> gr.Blocks:
    """Makes the page.

    Arguments
    ---------
    separator : AttractorSeparation
        The separator.

    Returns
    -------
    gradio.Blocks
        The page, to be launched; :func:`serve` does that.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    masknet: Any = separator.mods.masknet
    choices = [masknet.num_spks]
    if masknet.any_number:
        choices = [AUTO] * separator.can_count + [*range(1, MOST + 1)]

    def press(path: str | None, num_spks: int | str) -> Iterator[list[Any]]:
        """Separates; what is made goes once the page has a copy."""
        if not path:
            raise gr.Error("give a recording first", print_exception=False)
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = separate_for_page(separator, path, num_spks, folder)
            except UserError as error:
                line = str(error).replace(name_path(path), Path(path).name)
                raise gr.Error(one_line(line), print_exception=False) from error
            yield _show(made)

    with gr.Blocks(
        title="kmdanet", analytics_enabled=False, delete_cache=(SWEEP, KEPT)
    ) as page:
        gr.Markdown(ABOUT)
        with gr.Row():
            recording = gr.Audio(
                label="Recording",
                sources=["upload", "microphone"],
                type="filepath",
                elem_id="recording",
                buttons=["download"],
            )
            with gr.Column():
                talkers = gr.Radio(
                    choices,
                    value=AUTO if AUTO in choices else masknet.num_spks,
                    label="Talkers",
                    info="auto: they are counted" * (AUTO in choices),
                )
                example = gr.Button("Take the example", elem_id="example")
                button = gr.Button(
                    "Separate", variant="primary", elem_id="separate"
                )
        with gr.Column(visible=False) as results:
            summary = gr.Markdown(elem_id="summary")
            with gr.Row():
                mixture = _player("Mixture", "mixture")
                background = _player("Background", "background")
            with gr.Row():
                players = [
                    _player(f"Talker {number}", f"track_{number}")
                    for number in range(1, MOST + 1)
                ]
            archive = gr.DownloadButton("Download all", elem_id="archive")
            with gr.Row():
                turns = _picture("turns", 3)
                with gr.Column(scale=2):
                    table = gr.Dataframe(headers=HEADERS, interactive=False)
            with gr.Row():
                tracks = _picture("tracks", 3)
                embeddings = _picture("embeddings", 2)
        example.click(lambda: str(EXAMPLE), None, recording, queue=False)
        button.click(
            press,
            [recording, talkers],
            [
                *(results, summary, mixture, *players, background),
                *(archive, turns, table, tracks, embeddings),
            ],
            concurrency_limit=1,
        )
    return page.queue(max_size=WAITING)


def _player(label: str, name: str) -> gr.Audio:
    """A player of one signal."""
    return gr.Audio(
        label=label,
        type="filepath",
        interactive=False,
        elem_id=name,
        buttons=["download"],  # and none that shares
    )


def _picture(name: str, scale: int) -> gr.Image:
    """A picture, and what it takes of the width."""
    return gr.Image(
        type="filepath",
        interactive=False,
        elem_id=name,
        show_label=False,
        scale=scale,
        buttons=["download", "fullscreen"],
    )


def _show(result: PageResult) -> list[Any]:
    """What the components of the page get."""
    made, pictures = result.recording, result.pictures
    tracks = [*made.tracks, *[None] * MOST][:MOST]
    return [
        gr.update(visible=True),
        result.summary,
        *map(_update, [result.mixture, *tracks, made.background]),
        str(result.archive),
        _update(pictures["turns"]),
        [[turn.track + 1, turn.start, turn.end] for turn in made.turns],
        _update(pictures["tracks"]),
        _update(pictures.get("embeddings")),
    ]


def _update(file: Path | None) -> Any:
    """A file to show, or nothing."""
    return gr.update(value=file and str(file), visible=file is not None)


async def _ask_nobody_else(request: Any, answer: Any) -> Response:
    """Tells the browser to ask this server alone."""
    response: Response = await answer(request)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def serve(
    source: Source = None, host: str = "127.0.0.1", port: int = 7860
) -> None:
    """Serves the page until Ctrl-C.

    Arguments
    ---------
    source : str, pathlib.Path or FetchSource
        The separator, see :meth:`.AttractorSeparation.from_hparams`.
    host : str
        Address to serve at: by default, this computer can open it alone.
    port : int
        Port to serve at.

    Raises
    ------
    UserError
        If there is no such separator, or the port is taken.
    """
    separator = AttractorSeparation.from_hparams(source)
    with tempfile.TemporaryDirectory(prefix="kmdanet_page_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = make_page(separator)
        policy = Middleware(BaseHTTPMiddleware, dispatch=_ask_nobody_else)
        sans, mono = ("system-ui", "sans-serif"), ("monospace",)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                share=False,
                quiet=True,
                ssr_mode=False,
                max_file_size=UPLOAD,
                allowed_paths=[str(EXAMPLE)],
                theme=gr.themes.Default(font=sans, font_mono=mono),
                footer_links=[],
                app_kwargs={"middleware": [policy]},
            )
        except OSError as error:
            raise UserError(
                f"--host {host} --port {port} cannot be served at "
                f"({one_line(error)}): give another port"
            ) from error
        try:
            sys.stdout.write(f"http://{host}:{port} (Ctrl-C ends it)\n")
            sys.stdout.flush()
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.stdout.write("\n")
        finally:
            page.close(verbose=False)
