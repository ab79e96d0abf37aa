"""Training with two processes on the CPU."""

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
    monkeypatch.setenv("PYTHONPATH", str(RECIPE))
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
