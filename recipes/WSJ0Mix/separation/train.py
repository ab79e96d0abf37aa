#!/usr/bin/env python3
"""Trains and evaluates a separator of mixtures in the layout of WSJ0-mix.

    python train.py hparams/kmeans_danet_spherical.yaml \
        --data_folder /path/to/wsj0-mix/2speakers

Any key of the YAML file can be given on the command line. An interrupted run
continues when it is started again. On several devices:

    torchrun --nproc_per_node=2 train.py hparams/... --data_folder ...

At the end the best checkpoint is evaluated on the test set and written as a
separator that from_hparams loads; --test_only does that alone. A system without
parameters (an oracle) is evaluated at once.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import os
import sys
import time

import speechbrain as sb
import torch
from initial_state import is_finished, load_weights, must_fit
from make_datasets import make_loaders
from prepare_data import name_mixtures
from resumable import ResumableBrain
from settings import load_settings, save_settings
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger
from user_errors import user_message

from speechbrain_kmdanet.nnet.objectives import OBJECTIVES, Separation
from speechbrain_kmdanet.utils.distributed import gather
from speechbrain_kmdanet.utils.evaluation import (
    SeparationReport,
    evaluate_utterance,
)
from speechbrain_kmdanet.utils.examples import write_example
from speechbrain_kmdanet.utils.plots import plot_training_curves
from speechbrain_kmdanet.utils.pretrained import write_pretrained

logger = get_logger(__name__)


class Separator(ResumableBrain):
    """Training and evaluation of a masker between an encoder and a decoder."""

    def compute_forward(self, batch, stage):
        """Separation of a batch, see its objectives."""
        batch = batch.to(self.device)
        mixture, lengths = batch.mixture
        sources = batch.sources.data
        num_samples = (lengths * mixture.shape[1]).round().long()
        # Lengths are None without padding: recurrent layers run faster.
        num_frames = None
        if (num_samples < mixture.shape[1]).any():
            num_frames = self.hparams.model["encoder"].num_frames(num_samples)
        separation = Separation(
            self.modules.encoder(mixture),
            sources,
            num_samples,
            num_frames,
            self.hparams.model["masknet"].ordered,
            encode=self.modules.encoder,
            decode=self.modules.decoder,
        )
        separation.masks, separation.embeddings = self.modules.masknet(
            separation.spectrum,
            num_frames,
            sources.shape[2],
            separation.source_spectra if separation.ordered else None,
            with_embeddings=True,
        )
        return separation

    def compute_objectives(self, separation, batch, stage):
        """Loss of a batch; the scores are collected on the way."""
        loss = OBJECTIVES[self.loss](separation)
        if stage != sb.Stage.TRAIN:
            self._score(batch, separation, stage)
        return loss.mean()

    def _score(self, batch, separation, stage):
        """Adds the scores of a batch to the report of the stage."""
        test = stage == sb.Stage.TEST
        examples = self.hparams.num_examples if if_main_process() else 0
        for index, name in enumerate(batch.id):
            length = int(separation.num_samples[index])
            mixture = batch.mixture.data[index, :length].cpu()
            sources = batch.sources.data[index, :length].cpu()
            scores, ordered = evaluate_utterance(
                mixture,
                sources,
                separation.estimates[index, :length],
                compute_sdr=test and self.hparams.compute_sdr,
            )
            if test and len(self.report.rows) < examples:
                write_example(
                    os.path.join(self.hparams.test_folder, "examples", name),
                    mixture, sources, ordered, self.hparams.sample_rate,
                    f"{name}: SI-SDRi {scores['si_sdri']:.1f} dB",
                )  # fmt: skip
            self.report.add(name, scores)

    def on_stage_start(self, stage, epoch=None):
        """Chooses loss and mixtures of the epoch, or begins a report."""
        # The test has no epoch.
        pretraining = 0 < (epoch or 0) <= self.hparams.pretraining_epochs
        self.loss = (
            self.hparams.pretraining_loss if pretraining else self.hparams.loss
        )
        # A masker that is pretrained on embeddings spares itself the masks.
        self.hparams.model["masknet"].pretraining = pretraining
        if stage == sb.Stage.TRAIN:
            short = epoch <= self.hparams.curriculum_epochs
            self.train_data.segment_seconds = (
                self.hparams.curriculum_seconds
                if short
                else self.hparams.segment_seconds
            )
            self.train_data.epoch = epoch
            self.began = time.monotonic()
        else:
            self.report = SeparationReport()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs, changes the learning rate and saves, or writes the results."""
        losses = gather(stage_loss)
        stage_loss = sum(losses) / len(losses)
        if stage == sb.Stage.TRAIN:
            seconds = time.monotonic() - self.began
            self.train_stats = {"loss": stage_loss, "seconds": seconds}
            return
        self.report.gather()
        if stage == sb.Stage.VALID:
            si_sdri = self.report.summary()["si_sdri"]["mean"]
            lr, _ = self.hparams.lr_scheduler(self.optimizer)
            self.hparams.train_logger.log_stats(
                {"epoch": epoch, "lr": lr},
                train_stats=self.train_stats,
                valid_stats={"loss": stage_loss, "si_sdri": si_sdri},
            )
            self.checkpointer.save_and_keep_only(
                meta={"si_sdri": si_sdri, "epoch": epoch},
                max_keys=["si_sdri"],
            )
            curves = os.path.join(self.hparams.output_folder, "training.png")
            run_on_main(
                plot_training_curves, args=[self.hparams.train_log, curves]
            )
        else:
            run_on_main(self._write_results)

    def _write_results(self):
        """Writes the results of the test and shows their means."""
        keys = "data_folder", "infer_metric", "mask"
        about = {key: getattr(self.hparams, key, None) for key in keys}
        folder = self.hparams.test_folder
        self.report.write(folder, **about, weights=self.tested)
        logger.info(f"Test of {self.tested}: {self.report}")
        silent = self.report.summary()["silent_sources"]
        if silent:
            logger.info(f"Silent references, which were skipped: {silent}")
        logger.info(f"Results and examples are in {folder}")

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Takes the best checkpoint, unless other weights are to be tested."""
        if not has_parameters(self.modules):
            self.tested = f"{self.hparams.system}, without weights"
            return
        self.tested = self.hparams.initial_weights
        if self.test_only and self.tested:
            return
        best = self.checkpointer.recover_if_possible(
            max_key=max_key, ckpt_predicate=is_finished
        )
        if best is None:
            raise ValueError(
                f"no epoch was finished in {self.hparams.save_folder}, there "
                "is nothing to test: train first, or give --initial_weights"
            )
        self.tested = f"epoch {best.meta['epoch']}"

    def _wrap_distributed(self):
        """Wraps the modules as SpeechBrain does, on the CPU too.

        The batch normalisation that SpeechBrain synchronises runs on GPUs
        only; on the CPU each process has its own statistics, and those of the
        first are kept.
        """
        if not self.distributed_launch or self.device_type != "cpu":
            return super()._wrap_distributed()
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                self.modules[name] = torch.nn.parallel.DistributedDataParallel(
                    module, find_unused_parameters=self.find_unused_parameters
                )


def has_parameters(modules):
    """Whether there is something to train in modules by name."""
    return any(
        parameter.requires_grad
        for module in modules.values()
        for parameter in module.parameters()
    )


def run(arguments):
    """Trains, evaluates and writes the separator.

    Arguments
    ---------
    arguments : list of str
        Command line without the name of the program.

    Raises
    ------
    ValueError
        If a setting, the data or the weights cannot be used.
    """
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    sb.utils.distributed.ddp_init_group(run_opts)
    overrides = name_mixtures(overrides)
    hparams = load_settings(hparams_file, overrides)
    losses = {"loss": hparams["loss"]}
    if hparams["pretraining_epochs"]:
        losses["pretraining_loss"] = hparams["pretraining_loss"]
    for key, loss in losses.items():
        if loss not in OBJECTIVES:
            raise ValueError(
                f"{key} must be one of {tuple(OBJECTIVES)}, got {loss!r}"
            )
    has_magnitudes = hparams["model"]["encoder"].has_magnitudes
    if not has_magnitudes and hparams["loss"] != "si_sdr":
        raise ValueError(
            f"loss must be si_sdr for {hparams['system']}, which works in the "
            f"waveform domain and has no magnitudes, got {hparams['loss']!r}"
        )
    output, test_only = hparams["output_folder"], run_opts["test_only"]
    sb.create_experiment_directory(output)
    settings = os.path.join(output, "hyperparams.yaml")
    # A test with other settings leaves those of the training as they are.
    if not (test_only and os.path.isfile(settings)):
        run_on_main(save_settings, args=[hparams_file, overrides, settings])
    modules = hparams["modules"]
    trainable = has_parameters(modules)
    if not trainable:
        logger.info(
            f"{hparams['system']} has no parameters: it is not trained, there "
            "is no separator to write, and only the data of tt is read"
        )
    train, valid, test = make_loaders(hparams, test_only or not trainable)
    if hparams["initial_weights"]:
        load_weights(modules, hparams["initial_weights"])
    separator = Separator(
        modules,
        hparams["opt_class"],
        hparams,
        run_opts,
        hparams["checkpointer"],
    )
    separator.test_only = train is None
    if train is not None:
        separator.train_data = train.dataset
        # Its place in the epoch belongs to a checkpoint.
        hparams["checkpointer"].add_recoverable("dataloader-TRAIN", train)
    with must_fit(f"the checkpoint in {hparams['save_folder']}"):
        separator.fit(hparams["epoch_counter"], train, valid)
        separator.evaluate(test, max_key="si_sdri")
    if trainable and not (test_only and hparams["initial_weights"]):
        run_on_main(
            write_pretrained,
            args=[hparams["pretrained_folder"], settings, modules],
            kwargs={"half": hparams["half_weights"]},
        )
        logger.info(f"The separator is in {hparams['pretrained_folder']}")


def main(arguments):
    """Runs the command line, see `run`.

    Returns
    -------
    int
        0 if all is well, 2 for an error of the user, 130 when interrupted.
    """
    try:
        run(arguments)
    except KeyboardInterrupt:
        print("train.py: the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        logger.debug("Where it happened:", exc_info=True)
        print(f"train.py: error: {message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
