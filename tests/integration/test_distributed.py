"""Training with two processes on the CPU."""

import re
import socket

import torch
from recipe_runs import PROBE, command_line, run_python


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes(data, tmp_path):
    options = dict(data_folder=data.two, number_of_epochs=1, batch_size=2)
    mixed = dict(dynamic_mixing=data.corpus, epoch_size=12)
    trainings = {"listed": {}, "mixed": mixed}
    commands = []
    for name, extra in trainings.items():
        commands += ["--then"] if commands else []
        commands += command_line(
            "kmeans_danet_spherical",
            tmp_path / name,
            **{**options, **extra},
            distributed_backend="gloo",
            num_examples=1,
        )
    torchrun = "-m", "torch.distributed.run", "--nproc_per_node=2"
    port = f"--master_port={free_port()}"
    ranks = tmp_path / "ranks"
    status, output = run_python(
        *torchrun, port, PROBE, "record", ranks, *commands
    )
    assert status == 0, output[-3000:]

    counts = {"listed": 8, "mixed": 12}
    for name, count in counts.items():
        seen = [
            (ranks / name / f"rank{rank}.ids").read_text().split()
            for rank in (0, 1)
        ]
        assert len(seen[0]) == len(seen[1]) == count // 2
        assert len({*seen[0], *seen[1]}) == count
        weights = [
            torch.load(ranks / name / f"rank{rank}.weights") for rank in (0, 1)
        ]
        for first, second in zip(*weights):
            assert torch.equal(first, second)

        # One set of files, which the first process has written
        output = tmp_path / name
        assert len(list(output.glob("save/CKPT*"))) == 1
        log = (output / "train_log.txt").read_text()
        assert len(re.findall("^epoch: ", log, re.M)) == 1
        tested = (output / "test_2speakers" / "per_utterance.csv").read_text()
        assert len(tested.splitlines()) == 1 + 4
        examples = list((output / "test_2speakers" / "examples").iterdir())
        assert len(examples) == 1
        state = torch.load(output / "pretrained" / "masknet.ckpt")
        assert not any(key.startswith("module.") for key in state)
