"""Training with two processes on the CPU."""

import os
import re
import socket

import torch
from recipe_runs import PROBE, RECIPE, command_line, run_python


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes(data, tmp_path, monkeypatch):
    options = dict(data_folder=data.two, number_of_epochs=1, batch_size=2)
    both = dict(data_folder=f"[{data.two}, {data.three}]")
    mixed = dict(dynamic_mixing=data.corpus, epoch_size=24)
    trainings = {"listed": {}, "mixed": {**both, **mixed}}
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
    monkeypatch.setenv("PYTHONPATH", str(RECIPE), prepend=os.pathsep)
    status, output = run_python(
        *torchrun, port, PROBE, "record", ranks, *commands
    )
    assert status == 0, output[-3000:]

    counts = {"listed": 8, "mixed": 24}
    for name, count in counts.items():
        seen = [
            (ranks / name / f"rank{rank}.ids").read_text().split()
            for rank in (0, 1)
        ]
        assert len(seen[0]) == len(seen[1]) == count // 2
        assert len({*seen[0], *seen[1]}) == count
        if name == "mixed":
            # Both processes have as many talkers in a step: those of even
            # indices are two.
            parities = [[int(x.split("-")[1]) % 2 for x in ids] for ids in seen]
            assert parities[0] == parities[1]
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
        folder = {"listed": "2speakers", "mixed": "2speakers+3speakers"}[name]
        tested = output / f"test_{folder}"
        rows = (tested / "per_utterance.csv").read_text().splitlines()
        assert len(rows) == 1 + (4 if name == "listed" else 4 + 2)
        assert len(list((tested / "examples").iterdir())) == 1
        # The test set is shared out, and every row is that of a mixture.
        shares = [
            (ranks / name / f"rank{rank}.TEST.ids").read_text().split()
            for rank in (0, 1)
        ]
        assert len(shares[0]) == len(shares[1]) == (len(rows) - 1) // 2
        names = sorted(row.split(",")[0] for row in rows[1:])
        assert names == sorted(shares[0] + shares[1])
        state = torch.load(output / "pretrained" / "masknet.ckpt")
        assert not any(key.startswith("module.") for key in state)


# By batch normalisation and k-means; by what fixed attractors are made of.
SHARED = ["kmeans_danet_spherical", "danet_fixed"]


def test_two_processes_are_one_of_twice_the_batch(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(RECIPE), prepend=os.pathsep)
    torchrun = "-m", "torch.distributed.run", "--nproc_per_node=2"
    launchers = {1: (), 2: (*torchrun, f"--master_port={free_port()}")}
    for processes, launcher in launchers.items():
        commands = []
        for system in SHARED:
            commands += ["--then"] if commands else []
            commands += command_line(
                system,
                tmp_path / f"{system}{processes}",
                data_folder=data.two,
                number_of_epochs=1,
                batch_size=4 // processes,
                segment_seconds=10.0,  # longer than any: there is padding
                dropout=0.0,
                lr=1e-9,
                distributed_backend="gloo",
            )
        steps = tmp_path / "steps"
        status, output = run_python(
            *launcher, PROBE, "gradients", steps, *commands
        )
        assert status == 0, output[-3000:]
    for system in SHARED:
        for step in (0, 1):
            file = f"rank0.step{step}"
            one, two = (
                torch.load(steps / f"{system}{processes}" / file)
                for processes in launchers
            )
            gradients = [
                torch.cat([x.flatten() for x in gradients.values()])
                for gradients, _ in (one, two)
            ]
            error = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
            assert error < 1e-5, (system, step)
            torch.testing.assert_close(one[1], two[1], rtol=1e-5, atol=1e-5)
