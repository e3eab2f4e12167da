"""Bad input, one wrong thing each: networks, options, configurations and places for results."""

import os
import pickle
import shutil

import numpy as np
from faulty_world import (
    BALANCE,
    CONFIGURED,
    EVALUATE,
    INSPECT,
    PREDICT,
    QUICKSTART,
    RENDER,
    RUN,
    SCORE,
    STUDY,
    SYNTHESIZE,
    WEIGHTS,
    case,
)

from synthmtl.cli import main

# Data and networks that do not go together.


@case(BALANCE, r"faces.*: only \['neutral'\] expression: add images of at least one more class", name="other_classes")
def spoil_classes(world):
    for name in ("happiness", "fear"):
        shutil.rmtree(world.faces / name)


@case(EVALUATE, r"no faces found", name="no_class_of_the_network")
def spoil_all_classes(world):
    for name in ("neutral", "happiness", "fear"):
        (world.faces / name).rename(world.faces / {"neutral": "anger", "happiness": "disgust", "fear": "sadness"}[name])


@case(PREDICT, r"run/model: the weights lack .*; they are not those of this configuration$")
def spoil_missing_weight(world):
    world.weights(lambda weights: weights.pop(sorted(weights)[0]))


@case(PREDICT, r"run/model: the weights have the unknown extra\.weight; they are not those")
def spoil_unknown_weight(world):
    world.weights(lambda weights: weights.update({"extra.weight": np.zeros(3, np.float32)}))


@case(PREDICT, r"run/model: cannot load the weights .*size mismatch")
def spoil_shape(world):
    world.weights(lambda weights: weights.update({sorted(weights)[0]: np.zeros((2, 2), np.float32)}))


@case(PREDICT, r"run/model: the weights .* not finite")
def spoil_numbers(world):
    world.weights(lambda weights: weights[sorted(weights)[0]].fill(np.nan))


@case(SYNTHESIZE, r"run/generator: cannot load the weights")
def spoil_truncated_weights(world):
    file = world.run / "generator" / WEIGHTS
    file.write_bytes(file.read_bytes()[:5000])


class Payload:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@case(PREDICT, r"run/model: cannot load the weights .*safetensors")
def spoil_pickle(world):
    (world.run / "model" / WEIGHTS).unlink()
    (world.run / "model" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Payload(world.root / "trace")))


@case(PREDICT, r"config\.json: not a model's configuration \(broken JSON\)$")
def spoil_half_a_configuration(world):
    file = world.run / "model" / "config.json"
    file.write_bytes(file.read_bytes()[:40])


@case(PREDICT, r"config\.json: describes \[1\], not one of FERSNet,")
def spoil_list_for_a_configuration(world):
    (world.run / "model" / "config.json").write_text("[1]")


@case(PREDICT, r"config\.json: not a model's configuration")
def spoil_encoding_of_the_configuration(world):
    (world.run / "model" / "config.json").write_bytes(b'{"_class_name": "\xff"}')


@case(PREDICT, r"config\.json: describes 'Stranger', not one of")
def spoil_kind(world):
    world.config(_class_name="Stranger")


@case(PREDICT, r"config\.json: classes are .*'grumpiness'.*: use some of neutral,")
def spoil_classes_of_the_network(world):
    world.config(classes=["neutral", "happiness", "grumpiness"])


@case(PREDICT, r"run/model: cannot load the weights")
def spoil_kind_of_a_setting(world):
    world.config(stage_channels="wide")


@case(PREDICT, r"missing: no model here \(config\.json is missing\)", "--model", "{root}/missing", name="no_network")
@case(BALANCE, r"no judge there", "--judge", "{root}/missing", name="no_judge")
@case(SYNTHESIZE, r"unknown expression 'grumpiness'", "--expression", "grumpiness", name="unknown_wish")
@case(SYNTHESIZE, r"--spread is -1\.0: give a finite number from 0 up$", "--spread", "-1", name="spread")
@case(SYNTHESIZE, r"--seed is 9223372036854775808: a whole number", "--seed", str(2**63), name="large_seed")
@case(SYNTHESIZE, r"--seed is -1: a whole number", "--seed", "-1", name="negative_seed")
@case(BALANCE, r"quantile must lie in \[0, 1\), not 1\.5$", "--quantile", "1.5", name="quantile")
@case(
    BALANCE, r"unknown strategy '{happiness: many}': use one of auto,", "--strategy", "{happiness: many}", name="counts"
)
@case(
    BALANCE,
    r"strategy names the class 'grumpiness', which the data lack",
    "--strategy",
    "{grumpiness: 9}",
    name="unknown_count",
)
@case(BALANCE, r"steps, .* are for a diffusion generator", "--sampling.steps", "0", name="sampling_steps")
@case(SCORE, r"missing: no such folder or file", "--real", "{root}/missing", name="score_nothing")
@case(
    SCORE, r"unknown features 'nosuch': use one of efficientnet-lite0,", "--features", "nosuch", name="score_features"
)
@case(INSPECT[:1], r"missing: no such folder or file", "{root}/missing", name="inspect_nothing")
@case(
    QUICKSTART,
    r"image_size 0 does not suit the network: use a multiple of 16",
    "--faces.image_size",
    "0",
    name="no_pixels",
)
@case(QUICKSTART, r"steps must be at least 1, not -5", "--joint.steps", "-5", name="negative_steps")
@case(
    QUICKSTART,
    r"training learning_rate must be a finite number from 0 up, not -1\.0$",
    "--recognition.learning_rate",
    "-1",
    name="negative_rate",
)
@case(QUICKSTART, r"unknown aggregator 'nosuch'", "--joint.aggregator", "nosuch", name="aggregator")
@case(QUICKSTART, r"unknown sharing unit 'nosuch'", "--model.sharing", "nosuch", name="sharing")
@case(QUICKSTART, r"unknown model size 'huge': use one of published, cpu, tiny$", "--model.size", "huge", name="size")
@case(QUICKSTART, r"training batch_size must be at least 1, not 0$", "--recognition.batch_size", "0", name="no_batch")
@case(
    QUICKSTART,
    r"'neutral': -1.*: it must have no negative number$",
    "--faces.train_counts",
    "{neutral: -1, fear: 5}",
    name="negative_count",
)
@case(
    QUICKSTART, r"--synthesis\.edits is 1: it must be at least 2: the first", "--synthesis.edits", "1", name="one_edit"
)
@case(
    QUICKSTART,
    r"--synthesis\.rendered_share is 0\.1: it must make at least 2 of 8 edits rendered pairs, since the first of",
    "--synthesis.mode",
    "mixed",
    "--synthesis.rendered_share",
    "0.1",
    name="one_rendered_edit",
)
@case(
    QUICKSTART,
    r"the weight pixel must be a finite number from 0 up, not nan",
    "--synthesis.weights.pixel",
    ".nan",
    name="weight_of_no_number",
)
@case(
    QUICKSTART,
    r"receivers is \[0\.0\], name tasks from 0 to 1, or null for all$",
    "--model.sharing",
    "adopt",
    "--model.sharing_options",
    '{"receivers": [0.0]}',
    name="receiver_of_another_type",
)
@case(
    QUICKSTART,
    r"receivers is \[False\], name tasks from 0 to 1, or null for all$",
    "--model.sharing",
    "adopt",
    "--model.sharing_options",
    '{"receivers": [false]}',
    name="receiver_that_is_none",
)
@case(QUICKSTART, r"--joint\.patience is 1: .*: leave it out$", "--joint.patience", "1", name="joint_patience")
@case(
    QUICKSTART,
    r"--finetune\.aggregator is 'pcgrad': .*: leave it out$",
    "--finetune.aggregator",
    "pcgrad",
    name="aggregator_of_one_task",
)
@case(
    QUICKSTART,
    r"--finetune\.precision is 'bf16': .* leave it out, and give --precision$",
    "--finetune.precision",
    "bf16",
    name="precision_of_one_part",
)
@case(
    QUICKSTART,
    r"--synthesis\.critic_channels is \(0, 0\): it must be widths from 1 up",
    "--synthesis.critic_channels",
    "[0,0]",
    name="critic_without_channels",
)
@case(
    QUICKSTART,
    r"augmentation noise must be a finite number from 0 up, not -1\.0$",
    "--augmentation.noise",
    "-1",
    name="negative_noise",
)
@case(
    QUICKSTART,
    r"augmentation erase_probability is a probability, from 0 to 1, not 2\.0$",
    "--augmentation.erase_probability",
    "2",
    name="erase_probability",
)
@case(STUDY, r"unknown sharing unit 'nosuch'", "--grid.sharing", "[nosuch]", name="study_sharing")
@case(STUDY, r"--grid\.seeds is empty: give at least one$", "--grid.seeds", "[]", name="study_seeds")
@case(RENDER, r"image_size is 0: it must be from 32 to 256$", "--size", "0", name="render_size")
def spoil_nothing(world):
    pass


# Configurations.


@case(CONFIGURED, r"in the configuration file, line 1")
def spoil_yaml(world):
    (world.root / "options.yaml").write_text("faces: {image_size: 32\n")


@case(CONFIGURED, r"unknown option recognition\.stepps")
def spoil_key(world):
    (world.root / "options.yaml").write_text("recognition:\n  stepps: 3\n")


@case(CONFIGURED, r"the configuration file has no options: write lines of NAME: VALUE$")
def spoil_list_for_options(world):
    (world.root / "options.yaml").write_text("- 1\n- 2\n")


@case(CONFIGURED, r"options\.yaml: not UTF-8 text: give a YAML file$")
def spoil_encoding_of_options(world):
    (world.root / "options.yaml").write_bytes(b"faces:\n  path: \xff\xfe\n")


@case(CONFIGURED, r"could not determine a constructor .* in the configuration file, line 1")
def spoil_code_in_options(world):
    (world.root / "options.yaml").write_text(f"faces: !!python/object/apply:os.mkdir ['{world.root}/trace']\n")


@case(CONFIGURED, r"--config: Path is not a file: '.*options\.yaml'")
def spoil_folder_for_options(world):
    (world.root / "options.yaml").mkdir()


# Where results go.


@case(RENDER, r"out: is a file; give a folder$", name="out_is_a_file")
@case(EVALUATE, r"out\.json: exists; --overwrite replaces it$", name="scores_exist")
@case(RUN, r"out: is a file; give a folder$", name="run_out_is_a_file")
def spoil_out(world):
    (world.root / "out").write_text("mine")
    (world.root / "out.json").write_text("mine")


@case(RENDER, r"face\.png/below: cannot be made, .*face\.png is a file; give another --out$", "--out", "{face}/below")
@case(EVALUATE, r"face\.png: cannot be made", "--out", "{face}/scores.json", name="scores_below_a_file")
def spoil_below_a_file(world):
    pass


@case(BALANCE, r"run/options\.json: damaged; restore it, or delete it", name="damaged_options")
def spoil_options_of_the_run_that_balances(world):
    (world.run / "options.json").write_text('{"faces": ')


@case(RENDER, r"options\.json: damaged; give another --out, or --overwrite$", "--resume")
def spoil_options_of_a_run(world):
    (world.root / "out").mkdir()
    (world.root / "out" / "options.json").write_text('{"command": "ren')


@case(RENDER, r"out: belongs to a run with another count \(9 there, 8 now\)", "--resume")
def spoil_other_options(world):
    assert main(["render", "--count", "9", "--size", "32", "--out", str(world.root / "out")]) == 0
