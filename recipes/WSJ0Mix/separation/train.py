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
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import speechbrain as sb
import torch
from prepare_data import (
    describe_data,
    list_wsj0mix,
    make_loader,
    name_mixtures,
    read_recordings,
    write_list,
)
from speechbrain.nnet.schedulers import update_learning_rate
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger
from torch import nn
from torch.optim.swa_utils import AveragedModel

from speechbrain_kmdanet.dataio.mixture_dataset import (
    DynamicMixing,
    MixtureDataset,
)
from speechbrain_kmdanet.errors import UserError, run_command
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES
from speechbrain_kmdanet.processing.separation import Separation, separate
from speechbrain_kmdanet.utils.averaging import average_weights
from speechbrain_kmdanet.utils.checkpointing import WholeCheckpointer
from speechbrain_kmdanet.utils.evaluation import (
    SeparationReport,
    evaluate_utterance,
    gather,
)
from speechbrain_kmdanet.utils.export import load_weights, write_pretrained
from speechbrain_kmdanet.utils.plots import plot_training_curves, write_example
from speechbrain_kmdanet.utils.processes import process_group
from speechbrain_kmdanet.utils.resumable import ResumableBrain
from speechbrain_kmdanet.utils.run_folder import RunFolder
from speechbrain_kmdanet.utils.settings import parse_command
from speechbrain_kmdanet.utils.yaml_layers import load_settings

logger = get_logger(__name__)


class Separator(ResumableBrain):
    """Training and evaluation of a masker between an encoder and a decoder."""

    # Of the weights, which is evaluated and kept; None if there is none.
    average: AveragedModel | None = None

    def compute_forward(self, batch: Any, stage: sb.Stage) -> Separation:
        """Separation of a batch, with what its objective needs."""
        batch = batch.to(self.device, non_blocking=True)
        needs = self.objective.needs
        mixture = batch.mixture.data
        if stage == sb.Stage.TRAIN and self.hparams.use_wavedrop:
            mixture = self.hparams.drop_chunk(mixture, batch.mixture.lengths)
            mixture = self.hparams.drop_freq(mixture)
        modules = self.modules if stage == sb.Stage.TRAIN else self.evaluated
        return separate(
            modules["encoder"],
            modules["masknet"],
            modules["decoder"],
            mixture,
            num_samples=count_samples(batch),
            sources=batch.sources.data,
            outputs=needs if stage == sb.Stage.TRAIN else needs | {"masks"},
        )

    def compute_objectives(
        self, separation: Separation, batch: Any, stage: sb.Stage
    ) -> torch.Tensor:
        """Loss of a batch; the scores are collected on the way."""
        losses = self.objective(separation)  # [B]
        if stage == sb.Stage.TRAIN:
            return self._mean_of_some(losses)
        self._score(batch, separation, stage)
        return losses.mean()

    def _mean_of_some(self, losses: torch.Tensor) -> torch.Tensor:
        """Mean loss of the mixtures that are neither learned nor hopeless."""
        low, high = self.hparams.loss_threshold, self.hparams.loss_upper_lim
        kept = torch.ones_like(losses, dtype=torch.bool)
        # What is no number stays: it ends the training.
        if low is not None:
            kept &= ~(losses < low)
        if high is not None:
            kept &= ~(losses > high)
        return (losses * kept).sum() / kept.sum().clamp_min(1)

    def _score(
        self, batch: Any, separation: Separation, stage: sb.Stage
    ) -> None:
        """Adds the scores of a batch to the report of the stage."""
        test = stage == sb.Stage.TEST
        examples = self.hparams.num_examples if if_main_process() else 0
        lengths = count_samples(batch).tolist()
        for index, (name, length) in enumerate(zip(batch.id, lengths)):
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
                    mixture,
                    sources,
                    ordered,
                    self.hparams.sample_rate,
                    f"{name}: SI-SDRi {scores['si_sdri']:.1f} dB",
                )
            self.report.add(name, scores)

    def on_fit_start(self) -> None:
        """Everything fits: from here on, these are the settings."""
        super().on_fit_start()
        run_on_main(self.folder.record)

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Sets the rate of a step, where steps have one of their own."""
        super().on_fit_batch_start(batch, should_step)
        if self.hparams.schedule_by == "step":
            self.hparams.lr_scheduler(self.optimizer, self.optimizer_step + 1)

    def on_fit_batch_end(
        self, batch: Any, outputs: Any, loss: Any, should_step: bool
    ) -> None:
        """Takes the step into the average of the weights, if there is one."""
        if should_step and self.average is not None:
            self.average.update_parameters(self.modules)

    @property
    def evaluated(self) -> Any:
        """The modules that are evaluated and kept: averages, if there are."""
        return self.modules if self.average is None else self.average.module

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Chooses loss and mixtures of the epoch, or begins a report."""
        # The test has no epoch.
        pretraining = 0 < (epoch or 0) <= self.hparams.pretraining_epochs
        loss = "pretraining_loss" if pretraining else "loss"
        self.objective = OBJECTIVES[getattr(self.hparams, loss)]
        if stage != sb.Stage.TRAIN:
            self.report = SeparationReport()
            return
        self.train_data.segment_seconds = (
            self.hparams.curriculum_seconds
            if epoch <= self.hparams.curriculum_epochs
            else self.hparams.segment_seconds
        )
        self.train_data.epoch = epoch
        self.began = time.monotonic(), time.process_time()

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Logs, changes the learning rate and saves, or writes the results."""
        super().on_stage_end(stage, stage_loss, epoch)
        losses = gather(stage_loss)
        stage_loss = sum(losses) / len(losses)
        if stage == sb.Stage.TRAIN:
            wall, cpu = self.began
            self.train_stats = {
                "loss": stage_loss,
                "seconds": time.monotonic() - wall,
                # Of this process, without the workers of its loader.
                "cpu_seconds": time.process_time() - cpu,
            }
            return
        self.report.gather()
        if stage == sb.Stage.TEST:
            run_on_main(self._write_results)
            return
        si_sdri = self.report.summary().get("si_sdri", {}).get("mean")
        if si_sdri is None:
            raise UserError(
                "no mixture of cv has an SI-SDRi, by which the best epoch is "
                "chosen: give mixtures of two or more talkers"
            )
        lr = self.optimizer.param_groups[0]["lr"]
        if self.hparams.schedule_by == "epoch":
            lr, _ = self.hparams.lr_scheduler(self.optimizer)
        elif self.hparams.schedule_by == "loss":
            lr, new = self.hparams.lr_scheduler(
                [self.optimizer], epoch, stage_loss
            )
            update_learning_rate(self.optimizer, new)
        for log in (self.hparams.train_logger, self.hparams.tracker):
            if log is not None:
                log.log_stats(
                    {"epoch": epoch, "lr": lr},
                    train_stats=self.train_stats,
                    valid_stats={"loss": stage_loss, "si_sdri": si_sdri},
                )
        self.save_epoch({"si_sdri": si_sdri, "epoch": epoch}, "si_sdri")
        curves = os.path.join(self.hparams.output_folder, "training.png")
        # Loggers for other tools leave no text to draw.
        if os.path.isfile(self.hparams.train_log):
            run_on_main(plot_training_curves, [self.hparams.train_log, curves])

    def _write_results(self) -> None:
        """Writes the results of the test and shows their means."""
        keys = "data_folder", "infer_metric", "mask"
        about = {key: getattr(self.hparams, key, None) for key in keys}
        folder = self.hparams.test_folder
        self.report.write(folder, **about, weights=self.tested)
        logger.info(f"Test of {self.tested}: {self.report}")
        logger.info(f"Results and examples are in {folder}")

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Takes the best checkpoint, unless other weights are to be tested."""
        if not has_parameters(self.modules):
            self.tested = f"{self.hparams.system}, without weights"
            return
        self.tested = self.hparams.initial_weights
        if self.test_only and self.tested:
            return
        best = self.checkpointer.recover_if_possible(max_key=max_key)
        self.tested = f"epoch {best.meta['epoch']}"

    def _wrap_distributed(self) -> None:
        """Wraps the modules as SpeechBrain does, on the CPU too.

        SpeechBrain puts a batch normalisation that runs on GPUs only in place
        of PyTorch's; that of the trunks is shared by the processes anywhere.
        """
        if not self.distributed_launch or self.device_type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                self.modules[name] = nn.parallel.DistributedDataParallel(
                    module, find_unused_parameters=self.find_unused_parameters
                )


def make_datasets(
    hparams: Mapping[str, Any], test_only: bool = False
) -> tuple[Any, Any, MixtureDataset]:
    """Training, validation and test sets; the first two None if not wanted."""
    rate = hparams["sample_rate"]
    splits = ["tt"] if test_only else ["cv", "tt"]
    if not (test_only or hparams["dynamic_mixing"]):
        splits.insert(0, "tr")
    lists = list_wsj0mix(
        hparams["data_folder"],
        hparams["num_spks"],
        rate,
        hparams["mix_mode"],
        splits,
        hparams["mixture_name"],
        hparams["source_name"],
    )
    test = MixtureDataset(lists["tt"], sample_rate=rate)
    if test_only:
        return None, None, test
    valid = MixtureDataset(lists["cv"], sample_rate=rate)
    options = {
        "sample_rate": rate,
        "segment_seconds": hparams["segment_seconds"],
        "seed": hparams["seed"],
        "speeds": hparams["speeds"],
    }
    if not hparams["dynamic_mixing"]:
        shift = hparams["random_shift"]
        listed = MixtureDataset(lists["tr"], random_shift=shift, **options)
        return listed, valid, test
    save_folder = hparams["save_folder"]
    corpora, recordings = read_recordings(
        hparams["dynamic_mixing"], "corpus", save_folder
    )
    train = DynamicMixing(
        ", ".join(map(str, corpora)),
        recordings,
        num_spks=hparams["mixing_spks"] or sorted(set(valid.num_spks)),
        shares=hparams["mixing_shares"],
        by_length=hparams["talkers_by_length"],
        overlap=hparams["overlap"],
        epoch_size=hparams["epoch_size"],
        max_gain=hparams["max_gain"],
        noise=read_recordings(hparams["noise"], "noise", save_folder)[1],
        noise_snr=hparams["noise_snr"],
        noise_share=hparams["noise_share"],
        **options,
    )
    return train, valid, test


def make_loaders(
    hparams: Mapping[str, Any], test_only: bool = False
) -> list[Any]:
    """Loaders of the training, validation and test sets, or None."""
    options = (
        hparams["train_loader_options"],
        hparams["valid_loader_options"],
        hparams["test_loader_options"],
    )
    return [
        None if dataset is None else make_loader(dataset, **own)
        for dataset, own in zip(make_datasets(hparams, test_only), options)
    ]


def count_samples(batch: Any) -> torch.Tensor:
    """Length of each mixture of a batch without padding [B]."""
    mixture, lengths = batch.mixture
    return (lengths * mixture.shape[1]).round().long()


def has_parameters(modules: Mapping[str, nn.Module]) -> bool:
    """Whether there is something to train in modules by name."""
    return any(
        parameter.requires_grad
        for module in modules.values()
        for parameter in module.parameters()
    )


def _check_losses(hparams: Mapping[str, Any]) -> None:
    """Refuses losses that are unknown, or need what the system does not make."""
    made = hparams["masknet"].outputs
    if hparams["encoder"].has_magnitudes:
        made = made | {"magnitudes"}
    keys = ["loss"] + ["pretraining_loss"] * bool(hparams["pretraining_epochs"])
    for key, loss in [(key, hparams[key]) for key in keys]:
        if loss not in OBJECTIVES:
            raise UserError(
                f"{key} must be one of {tuple(OBJECTIVES)}, got {loss!r}"
            )
        missing = OBJECTIVES[loss].needs - made
        if missing:
            fit = [x for x, other in OBJECTIVES.items() if other.needs <= made]
            raise UserError(
                f"{key} {loss} needs {' and '.join(sorted(missing))}, and "
                f"{hparams['system']} makes none to train on: choose from "
                f"{', '.join(fit)}"
            )


def _try_checkpoint(checkpointer: WholeCheckpointer, best: str | None) -> None:
    """Refuses what cannot be gone on with, or tested: the best by some key."""
    found = checkpointer.find_checkpoint(max_key=best)
    if found is not None:
        checkpointer.load_checkpoint(found)
    elif best:
        raise UserError(
            f"no epoch was finished in {checkpointer.checkpoints_dir}, there "
            "is nothing to test: train first, or give --initial_weights"
        )


def run(arguments: Sequence[str]) -> None:
    """Trains, evaluates and writes the separator.

    Arguments
    ---------
    arguments : sequence of str
        Command line without the name of the program.

    Raises
    ------
    UserError
        If a setting, the data or the weights cannot be used.
    """
    hparams_file, run_opts, overrides = parse_command(arguments)
    overrides = name_mixtures(overrides)
    with process_group(run_opts):
        hparams = load_settings(hparams_file, overrides)
        _check_losses(hparams)
        folder = RunFolder(hparams["output_folder"], hparams_file, overrides)
        with folder.opened(run_opts["test_only"]):
            _train_and_test(hparams, run_opts, folder)


def _train_and_test(
    hparams: dict[str, Any], run_opts: Any, folder: RunFolder
) -> None:
    """Does what :func:`run` does, in a folder that is its own."""
    test_only = run_opts["test_only"]
    modules, checkpointer = hparams["modules"], hparams["checkpointer"]
    trainable = has_parameters(modules)
    if hparams["initial_weights"]:
        load_weights(modules, hparams["initial_weights"])
    loaders = make_loaders(hparams, test_only or not trainable)
    train, valid, test = loaders
    if train is not None:
        sets = [x.dataset for x in (train, valid) if x is not None]
        checkpointer.belong_to("data", [describe_data(x) for x in sets])
    for name, module in modules.items():
        if module.state_dict():
            checkpointer.add_recoverable(name, module)
    if train is not None or (trainable and not hparams["initial_weights"]):
        _try_checkpoint(checkpointer, "si_sdri" if test_only else None)
    # All that can be refused was; from here on, files are written.
    run_on_main(folder.prepare)
    sb.create_experiment_directory(folder.path)
    for split, loader in zip(("tr", "cv", "tt"), loaders):
        if loader is not None and isinstance(loader.dataset, MixtureDataset):
            mixtures = hparams["save_folder"], split, loader.dataset.data
            run_on_main(write_list, mixtures)
    if not trainable:
        logger.info(
            f"{hparams['system']} has no parameters: it is not trained, there "
            "is no separator to write, and only the data of tt is read"
        )
    separator = Separator(
        modules, hparams["opt_class"], hparams, run_opts, checkpointer
    )
    separator.folder = folder
    separator.test_only = train is None
    if trainable and hparams["ema_decay"]:
        separator.average = average_weights(modules, hparams["ema_decay"])
        checkpointer.add_recoverable("average", separator.average)
    if hparams["schedule_by"] != "step":  # which is a function of the step
        checkpointer.add_recoverable("lr_scheduler", hparams["lr_scheduler"])
    if train is not None:
        separator.train_data = train.dataset
        # Its place in the epoch belongs to a checkpoint.
        checkpointer.add_recoverable("dataloader-TRAIN", train)
    separator.fit(hparams["epoch_counter"], train, valid)
    separator.evaluate(test, max_key="si_sdri")
    if train is None and not (test_only and folder.settings_file.is_file()):
        run_on_main(folder.record)
    if not trainable or (test_only and hparams["initial_weights"]):
        return
    if not folder.is_as_trained():
        logger.info("Tested with other settings: no separator is written")
        return
    # Not those of the separator, which may be wrapped.
    average = separator.average
    trained = modules if average is None else average.module
    run_on_main(
        write_pretrained,
        args=[
            hparams["pretrained_folder"],
            folder.settings_file,
            trained,
        ],
        kwargs={"half": hparams["half_weights"]},
    )
    logger.info(f"The separator is in {hparams['pretrained_folder']}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, see :func:`run`; returns the exit status."""
    return run_command("train.py", run, arguments)


if __name__ == "__main__":
    sys.exit(main())
