"""Settings and options are what they may be, or refused in one line."""

import json
import re

import pytest
import torch
from recipe_runs import RECIPE, ROOT
from ruamel.yaml import YAML

from speechbrain_kmdanet.dataio.mixing import MODES
from speechbrain_kmdanet.errors import UserError
from speechbrain_kmdanet.lobes.models.mask_inference import ACTIVATIONS
from speechbrain_kmdanet.nnet.objectives import OBJECTIVES
from speechbrain_kmdanet.processing.kmeans import METRICS
from speechbrain_kmdanet.processing.masks import ATTRACTOR_MASKS, IDEAL_MASKS
from speechbrain_kmdanet.processing.seeding import INITS
from speechbrain_kmdanet.utils.schema import check_settings, read_schema
from speechbrain_kmdanet.utils.settings import parse_command
from speechbrain_kmdanet.utils.yaml_layers import load_settings, parse_overrides

SCHEMA = ROOT / "hparams" / "schema.yaml"
MODEL = ROOT / "hparams" / "kmeans_danet.yaml"
SYSTEM = RECIPE / "hparams" / "kmeans_danet_spherical.yaml"


def refused(call, *arguments):
    """The line that something is refused in."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    message = str(error.value)
    assert message and "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("batch_size", 0, "batch_size must be a positive integer, got 0"),
        ("batch_size", 2.0, "must be a positive integer, got 2.0"),
        ("batch_size", True, "must be a positive integer, got True"),
        ("lr", "abc", "lr must be a positive number, got 'abc'"),
        ("lr", 0, "lr must be a positive number, got 0"),
        ("lr", "1e400", "lr must be a positive number, got inf"),
        ("lr", ".nan", "lr must be a positive number, got nan"),
        ("lr", {"a": 1}, "lr must be a positive number, got {'a': 1}"),
        ("lr", "(0.1, 0.2)", r"lr must be a positive number, got \(0.1, 0.2\)"),
        ("num_spks", 0, "num_spks must be an integer from 1 to 100, got 0"),
        ("epoch_size", 0, "epoch_size must be a positive integer"),
        ("epoch_size", 10**400, "epoch_size must be a positive integer"),
        ("number_of_epochs", "abc", "number_of_epochs must be a positive"),
        ("compute_sdr", "x", "compute_sdr must be True or False, got 'x'"),
        ("compute_sdr", 1, "compute_sdr must be True or False, got 1"),
        ("hidden_size", [512], "hidden_size must be a positive integer"),
        ("hidden_size", 31, "hidden_size is shared by two directions"),
        ("hidden_size", None, "hidden_size must be .*, got None"),
        ("seed", -1, "seed must be an integer from 0 to 4294967295, got -1"),
        ("seed", "a\nb", r"seed must be an integer .*, got 'a\\nb'"),
        ("noise_snr", 10, "noise_snr must be two numbers in dB, in a list"),
        ("noise_snr", [10], "noise_snr must be two numbers in dB, in a list"),
        ("speeds", [], r"speeds must be a list of numbers from 0.1 to 10"),
        ("speeds", [1, 0], r"speeds\[1\] must be a number from 0.1 to 10"),
        ("mixing_spks", [2, 0], "mixing_spks must be a number of talkers"),
        ("data_folder", [], "data_folder must be a folder, or a list of fold"),
        ("data_folder", [3], "data_folder must be a folder, or a list of fo"),
        ("output_folder", 7, "output_folder must be a path .*, got 7"),
        (
            "output_folder",
            "a<b>",
            "output_folder must be a path .*, got 'a<b>'",
        ),
        ("loss", "snr", r"loss must be one of \('magnitude', 'si_sdr'"),
        (
            "pretraining_loss",
            3,
            r"pretraining_loss must be one of \('magnitude', .* or null",
        ),
        ("ema_decay", 1, "ema_decay must be a number from 0 to below 1"),
        ("encoder", 3, "encoder must be something that is made"),
        ("encoder", {"a": 1}, "encoder: .*STFTEncoder has no argument 'a'"),
        (
            "encoder",
            {"sample_rat": 1},
            r"has no argument 'sample_rat' \(did you mean sample_rate\?\)",
        ),
        ("window_ms", 32.5, "window_ms must be an integer from 1 to 10000"),
        ("hops_per_window", 1, "hop_length must be positive and at most half"),
        ("train_loader_options", 3, "must be options of a loader by name"),
        (
            "train_loader_options",
            {"num_worker": 0},
            r"has no key 'num_worker' \(did you mean num_workers\?\)",
        ),
        (
            "train_loader_options",
            {"num_workers": -1},
            r"train_loader_options\[num_workers\] must be an integer from 0",
        ),
        (
            "train_loader_options",
            {"num_workers": 0, "prefetch_factor": 2},
            r"\[num_workers\] must be 1 or more for prefetch_factor, got 0",
        ),
        ("btach_size", 3, r"no key btach_size: .*\(did you mean batch_size\?"),
        ("num_spk", 3, r"no key num_spk: .* \(did you mean num_spks\?\)"),
        ("nothing_like_it", 3, "no key nothing_like_it: check --nothing_like"),
    ],
)
def test_wrong_settings(key, value, expected, tmp_path):
    given = {"data_folder": "x", "output_folder": str(tmp_path / "out")}
    given[key] = value
    if isinstance(value, str) and "\n" not in value:
        given = parse_overrides(
            "\n".join(f"{k}: {x}" for k, x in given.items())
        )
    message = refused(load_settings, SYSTEM, given)
    assert re.search(expected, message), message
    assert not any(tmp_path.iterdir())


def test_sizes_that_do_not_fit_together():
    message = refused(
        load_settings,
        ROOT / "hparams" / "sepformer.yaml",
        {"num_heads": 3, "num_filters": 8},
    )
    assert "sepformer.yaml: what it describes cannot be made: " in message


def test_settings_of_files_are_checked_too(tmp_path):
    path = tmp_path / "mine.yaml"
    text = f"layers: [{MODEL}]\nmy_own: [anything, 3]\nhidden_size: "
    path.write_text(f"{text}16\n")
    assert load_settings(path)["my_own"] == ["anything", 3]
    assert load_settings(path, {"my_own": {"else": 1}})["my_own"] == {"else": 1}
    path.write_text(f"{text}!ref <n_fft> / 3\n")
    expected = "hidden_size must be a positive integer of at most 16384, got "
    assert refused(load_settings, path).startswith(expected)
    path.write_text(f"{text}16\nmine: !new:speechbrain_kmdanet.no.Such {{}}\n")
    assert "mine: there is no speechbrain_kmdanet.no.Such: check its name" in (
        refused(load_settings, path)
    )
    path.write_text(f"{text}16\nmine: !new:os.getcwd {{}}\n")
    assert "mine: there is no os.getcwd, which is a class" in (
        refused(load_settings, path)
    )
    path.write_text(f"{text}16\nmine: !unknown 3\n")
    assert "what it describes cannot be made" in refused(load_settings, path)


def test_tuples_are_lists_of_numbers():
    check_settings({"speeds": "(0.9, 1.1)", "noise_snr": "(5, 10)"}, SCHEMA)
    message = refused(check_settings, {"data_folder": "(a, b)"}, SCHEMA)
    assert "data_folder must be a folder" in message


def test_choices_are_those_of_the_code():
    schema = read_schema(SCHEMA)
    choices = {**schema["properties"], **schema["$defs"]}
    for key, known in {
        "activation": ACTIVATIONS,
        "init": INITS,
        "loss": OBJECTIVES,
        "mask": IDEAL_MASKS,
        "masks": ATTRACTOR_MASKS,
        "metric": METRICS,
        "mix_mode": MODES,
    }.items():
        assert choices[key]["enum"] == list(known), key


def parse(*words):
    """Settings that a command line gives."""
    path, _, overrides = parse_command(["some.yaml", *words])
    assert path == "some.yaml"
    return parse_overrides(overrides)


@pytest.mark.parametrize(
    "path",
    [
        *("/tmp/a$b", "/tmp/a$b$c", "/tmp/a b", "/tmp/a  b", "/tmp/a #b"),
        *("#a", "/tmp/a: b", "a:", "ab:c", "/tmp/a=b", "=", "@a", "%a", "*a"),
        *("&a b", "- a", "? a", "!a", "`a", ",a", " a", "a ", "a\tb", "a\nb"),
        *("a\\b", "a'b", 'a"b', "ä ö", "a/\U0001f600: b", "10/2", "-a", "~a"),
        *("http://a/b", "a|b", "|", ">", "2+3", "a]b", "}"),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_a_path_is_taken_as_it_stands(path, joined):
    words = [f"--folder={path}"] if joined else ["--folder", path]
    assert parse(*words, "--lr", "0.1") == {"folder": path, "lr": 0.1}


@pytest.mark.parametrize(
    "text, value",
    [
        *(("3", 3), ("-3", -3), ("1e-3", 1e-3), ("True", True), ("", None)),
        *(("null", None), ("[1, 2]", [1, 2]), ("{a: 1}", {"a": 1})),
        *(('"7"', "7"), ("'a: b'", "a: b"), ('["a #b"]', ["a #b"])),
        ("[1,\n2]", [1, 2]),
    ],
)
def test_values_are_yaml(text, value):
    assert parse("--key", text) == {"key": value}


def test_a_dollar_in_the_output_folder(tmp_path):
    folder = str(tmp_path / "a$b $1: #c")
    _, _, overrides = parse_command(["x", "--output_folder", folder])
    settings = load_settings(SYSTEM, f"{overrides}\ndata_folder: x")
    assert settings["output_folder"] == folder
    assert settings["save_folder"] == f"{folder}/save"
    assert settings["train_log"] == f"{folder}/train_log.txt"


@pytest.mark.parametrize(
    "words, expected",
    [
        (["lr", "0.1"], "'lr' is no option"),
        (["--lr", "0.1", "0.2"], "'0.2' is no option"),
        (["--output_folder", "a", "b c"], "'b c' is no option: expected --KEY"),
        (["--noprogressbar", "x=y"], "'x=y' is no option"),
        (["--lr=0.1", "0.2"], "'0.2' is no option"),
        (["--lr", "1", "--lr", "2"], "--lr is given twice"),
        (["--key", "[" * 5000], "a value that cannot be understood"),
        (["--key", "1" * 5000], "a value that cannot be understood"),
        (["--key", "[1]\nlr: 3"], "a value that cannot be understood"),
    ],
)
def test_what_is_no_option(words, expected):
    assert expected in refused(parse, *words)


@pytest.mark.parametrize(
    "words, expected",
    [
        ("--device foo", "device must be cpu, cuda, .*, got 'foo'"),
        ("--device meta", "device meta is not there: .* 0 meta devices"),
        ("--device cuda:99", "device cuda:99 is not there"),
        ("--precision fp16 --device cpu", "precision must be fp32 or bf16"),
        ("--eval_precision fp16 --device cpu", "eval_precision must be fp32"),
        ("--auto_mix_prec --device cpu", "auto_mix_prec must be left out"),
        (
            "--debug_batches 0",
            "debug_batches must be a positive integer, got 0",
        ),
        ("--grad_accumulation_factor 0", "factor must be a positive integer"),
        ("--optimizer_step_limit x", "step_limit must be a positive integer"),
        ("--optimizer_step_limit 0", "step_limit must be a positive integer"),
        ("--nonfinite_patience -1", "patience must be 0 or a positive integer"),
        ("--max_grad_norm nan", "max_grad_norm must be a number, got nan"),
        ("--distributed_backend x", "backend must be one of .'nccl', 'gloo'"),
        ("--compile_mode x", "compile_mode must be one of .'default'"),
        ("--compile_module_keys x", "compile_module_keys must be among"),
        ("--jit", "jit must be left out"),
        ("--jit_module_keys masknet", "jit must be left out"),
    ],
)
def test_wrong_run_options(words, expected):
    message = refused(parse, *words.split())
    assert re.search(expected, message), message


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = refused(parse, "--device", "cuda:0")
    assert message.startswith("device cuda:0 is not there: this machine has 0")


def test_run_options_that_are_fine():
    words = "--device cpu --precision bf16 --optimizer_step_limit 5 --debug"
    _, run_opts, overrides = parse_command(["some.yaml", *words.split()])
    assert run_opts["optimizer_step_limit"] == 5
    assert run_opts["device"] == "cpu" and run_opts["debug"]
    assert overrides == ""


def test_every_key_has_a_description():
    schema = YAML(typ="safe").load(SCHEMA.read_text(encoding="utf-8"))
    for key, value in schema["properties"].items():
        assert 5 < len(value["description"]) < 80, key
        # Ready for every reader of JSON Schema
        json.dumps(value)
    assert list(schema["properties"]) == sorted(schema["properties"])
