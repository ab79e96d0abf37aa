#!/usr/bin/env python3
"""Trains and evaluates a separator of mixtures in the layout of WSJ0-mix.

    python train.py hparams/kmeans_danet_spherical.yaml \
        --data_folder /path/to/wsj0-mix/2speakers

Any key of the YAML file can be given on the command line. An interrupted run
continues when it is started again. On several devices:

    torchrun --nproc_per_node=2 train.py hparams/... --data_folder ...

At the end the best checkpoint is evaluated on the test set and written as a
separator that from_hparams loads; --test_only does that alone.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import os
import sys

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from prepare_data import prepare_wsj0mix
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

from speechbrain_kmdanet.dataio.dynamic_mixing import (
    DynamicMixing,
    index_corpus,
)
from speechbrain_kmdanet.dataio.mixture_dataset import MixtureDataset
from speechbrain_kmdanet.nnet.losses import magnitude_loss, si_sdr_loss
from speechbrain_kmdanet.processing.separate import decode_sources
from speechbrain_kmdanet.utils.evaluation import (
    SeparationReport,
    evaluate_utterance,
)
from speechbrain_kmdanet.utils.examples import write_example
from speechbrain_kmdanet.utils.plots import plot_training_curves
from speechbrain_kmdanet.utils.pretrained import write_pretrained

logger = get_logger(__name__)


class Separation(sb.Brain):
    """Training and evaluation of a masker between an encoder and a decoder."""

    def compute_forward(self, batch, stage):
        """Masks of a batch, and what they were computed from."""
        batch = batch.to(self.device)
        mixture, lengths = batch.mixture
        sources = batch.sources.data
        num_samples = (lengths * mixture.shape[1]).round().long()
        # Lengths are None without padding: recurrent layers run faster.
        num_frames = None
        if (num_samples < mixture.shape[1]).any():
            num_frames = self.hparams.model["encoder"].num_frames(num_samples)
        spectrum = self.modules.encoder(mixture)
        magnitudes = self._source_magnitudes(sources, stage)
        masks = self.modules.masknet(
            spectrum, num_frames, sources.shape[2], magnitudes
        )
        return masks, spectrum, magnitudes, num_frames, num_samples

    def _source_magnitudes(self, sources, stage):
        """Magnitudes of the sources [B, K, F, T], where something needs them."""
        if not self._ordered(stage) and self.hparams.loss != "magnitude":
            return None
        batch, _, num_spks = sources.shape
        spectra = self.modules.encoder(sources.transpose(1, 2).flatten(0, 1))
        return spectra.abs().unflatten(0, (batch, num_spks))

    def _ordered(self, stage):
        """Whether estimate l is known to belong to source l."""
        if stage != sb.Stage.TRAIN:
            return False
        return self.hparams.model["masknet"].train_attractors.ordered

    def compute_objectives(self, predictions, batch, stage):
        """Loss of a batch; the scores are collected on the way."""
        masks, spectrum, magnitudes, num_frames, num_samples = predictions
        sources = batch.sources.data
        pit = not self._ordered(stage)
        estimates = None
        if self.hparams.loss == "si_sdr" or stage != sb.Stage.TRAIN:
            estimates = decode_sources(
                masks, spectrum, self.modules.decoder, sources.shape[1]
            )
        if self.hparams.loss == "si_sdr":
            loss = si_sdr_loss(estimates, sources, num_samples, pit)
        else:
            masked = masks.transpose(0, 1) * spectrum.abs().unsqueeze(1)
            loss = magnitude_loss(masked, magnitudes, num_frames, pit)
        if stage != sb.Stage.TRAIN:
            self._score(batch, estimates, num_samples, stage)
        return loss.mean()

    def _score(self, batch, estimates, num_samples, stage):
        """Adds the scores of a batch to the report of the stage."""
        test = stage == sb.Stage.TEST
        for index, name in enumerate(batch.id):
            length = int(num_samples[index])
            mixture = batch.mixture.data[index, :length].cpu()
            sources = batch.sources.data[index, :length].cpu()
            scores, ordered = evaluate_utterance(
                mixture,
                sources,
                estimates[index, :length],
                compute_sdr=test and self.hparams.compute_sdr,
            )
            if test and len(self.report.rows) < self.hparams.num_examples:
                write_example(
                    os.path.join(self.hparams.test_folder, "examples", name),
                    mixture, sources, ordered, self.hparams.sample_rate,
                    f"{name}: SI-SDRi {scores['si_sdri']:.1f} dB",
                )  # fmt: skip
            self.report.add(name, scores)

    def on_stage_start(self, stage, epoch=None):
        """Chooses the mixtures of the epoch, or begins a report."""
        if stage == sb.Stage.TRAIN:
            short = epoch <= self.hparams.curriculum_epochs
            self.train_data.segment_seconds = (
                self.hparams.curriculum_seconds
                if short
                else self.hparams.segment_seconds
            )
            self.train_data.set_epoch(epoch)
        else:
            self.report = SeparationReport()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs, changes the learning rate and saves, or writes the results."""
        if stage == sb.Stage.TRAIN:
            self.train_loss = stage_loss
        elif stage == sb.Stage.VALID:
            si_sdri = self.report.summary()["si_sdri"]["mean"]
            lr, _ = self.hparams.lr_scheduler(self.optimizer)
            self.hparams.train_logger.log_stats(
                {"epoch": epoch, "lr": lr},
                train_stats={"loss": self.train_loss},
                valid_stats={"loss": stage_loss, "si_sdri": si_sdri},
            )
            self.checkpointer.save_and_keep_only(
                meta={"si_sdri": si_sdri, "epoch": epoch},
                max_keys=["si_sdri"],
            )
            run_on_main(
                plot_training_curves,
                args=[
                    self.hparams.train_log,
                    os.path.join(self.hparams.output_folder, "training.png"),
                ],
            )
        else:
            run_on_main(
                self.report.write,
                args=[self.hparams.test_folder],
                kwargs={"data_folder": self.hparams.data_folder},
            )
            logger.info(f"Test: {self.report}")
            logger.info(f"Results are in {self.hparams.test_folder}")


def make_datasets(hparams):
    """Training, validation and test sets.

    Arguments
    ---------
    hparams : dict
        Hyperparameters.

    Returns
    -------
    train, valid, test : torch.utils.data.Dataset
        The sets; training is None if it is neither listed nor mixed.
    """
    corpus = hparams["dynamic_mixing"]
    splits = ("cv", "tt") if corpus else ("tr", "cv", "tt")
    names = {
        key: hparams[key] for key in ("num_spks", "sample_rate", "mix_mode")
    }
    folder = hparams["save_folder"]
    run_on_main(
        prepare_wsj0mix,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": folder,
            "splits": splits,
            **names,
        },
    )
    del names["mix_mode"]
    segments = {
        "segment_seconds": hparams["segment_seconds"],
        "seed": hparams["seed"],
        **names,
    }
    if corpus:
        index_file = os.path.join(folder, "corpus.csv")
        run_on_main(index_corpus, args=[corpus, index_file])
        train = DynamicMixing(
            corpus,
            index_corpus(corpus, index_file),
            epoch_size=hparams["epoch_size"],
            speeds=hparams["speeds"],
            **segments,
        )
    else:
        train = MixtureDataset.from_csv(
            os.path.join(folder, "tr.csv"), **segments
        )
    valid, test = (
        MixtureDataset.from_csv(os.path.join(folder, f"{split}.csv"), **names)
        for split in ("cv", "tt")
    )
    return train, valid, test


def main(arguments):
    """Trains, evaluates and writes the separator.

    Arguments
    ---------
    arguments : list of str
        Command line without the name of the program.
    """
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    sb.utils.distributed.ddp_init_group(run_opts)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    sb.create_experiment_directory(
        hparams["output_folder"], hparams_file, overrides
    )
    masknet = hparams["model"]["masknet"]
    if hparams["initial_weights"]:
        masknet.load_state_dict(
            torch.load(hparams["initial_weights"], map_location="cpu")
        )
    train, valid, test = make_datasets(hparams)
    separation = Separation(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        run_opts,
        hparams["checkpointer"],
    )
    separation.train_data = train
    loaders = {
        stage: {"collate_fn": PaddedBatch, **hparams[f"{stage}_loader_options"]}
        for stage in ("train", "valid", "test")
    }
    separation.fit(
        hparams["epoch_counter"],
        train,
        valid,
        train_loader_kwargs=loaders["train"],
        valid_loader_kwargs=loaders["valid"],
    )
    separation.evaluate(
        test, max_key="si_sdri", test_loader_kwargs=loaders["test"]
    )
    run_on_main(
        write_pretrained,
        args=[
            hparams["pretrained_folder"],
            os.path.join(hparams["output_folder"], "hyperparams.yaml"),
            masknet,
        ],
    )
    logger.info(f"The separator is in {hparams['pretrained_folder']}")


if __name__ == "__main__":
    main(sys.argv[1:])
