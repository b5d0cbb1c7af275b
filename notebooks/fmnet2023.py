# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # FM-Net: an attention U-Net in three dimensions, and three readings of it
#
# Brain tumors in MRI, segmented volume by volume, after a report of 2023 by Yilmaz and Arslan
# (Bilkent University). The network is a U-Net with gates on its skips, a bottleneck, and deeply
# supervised decoder stages. The authors' PyTorch code is public, and it differs from what the text
# describes; Figure 6 contradicts both. All three networks can be built here: `variant="code"`,
# whose loss fits the paper's numbers, `variant="paper"` for the text, and `variant="figure"` for
# Figure 6.
#
# This notebook measures on the networks themselves how the first two differ. It then shows how
# crops are placed and augmented, a short training, and the prediction of whole volumes by
# overlapping windows. It ends with two scores: one can stand beside the paper's table, the other
# can be compared with other papers. It calls the public interface of `keras_medseg` and trains in
# the same way as the command line does. It needs neither data nor an internet connection: the
# patients are synthetic.
#
# `experiments/fmnet2023/ledger.toml` lists the open points and how each of them was decided, with
# one entry per statement of the paper or of its code.

# %%
import contextlib
import io
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if not Path("experiments").is_dir():
    os.chdir("..")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown

import keras_medseg
from experiments.fmnet2023.crop_scores import soft_dice
from experiments.fmnet2023.recipe import EXPERIMENTS, RECIPE
from keras_medseg import phantoms, recipe
from keras_medseg.data import store
from keras_medseg.data.batches import patches
from keras_medseg.data.datasets import brats
from keras_medseg.data.transforms import augment_volumes, volumes
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.inference import sliding_window
from keras_medseg.phantoms import brain
from keras_medseg.reporting import tables
from keras_medseg.reporting.figures import style
from keras_medseg.reporting.figures import volumes as figures
from keras_medseg.reporting.report import RunData, why_not_comparable
from keras_medseg.runs import experiment, report
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.training.callbacks import best_epoch

logging.getLogger("tensorflow").setLevel("ERROR")
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.3f}".format
pd.options.display.width = 100
pd.options.display.max_colwidth = 80
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)
PAPER = EXPERIMENTS["BraTS2021"]
DATASET = brats.Brats()
(REGIONS,) = RECIPE.model.targets

# %% [markdown]
# ## 1. The network
#
# The network has five levels of 32 to 512 channels, 3x3x3 convolutions, instance normalization and
# leaky ReLU. Every part is an argument of `build`, and so are the steps of the paper's Figure 4.
# The networks of the code have exactly as many parameters as the authors' networks; the tests
# compare their outputs as well.

# %%
STEPS = {
    "U-Net": {"attention": False, "supervision_heads": 0, "bottleneck_blocks": 0},
    "Attention U-Net": {"supervision_heads": 0, "bottleneck_blocks": 0},
    "with deep supervision": {"bottleneck_blocks": 0},
    "FM-Net, the code": {},
    "FM-Net, the text": {"variant": "paper"},
    "FM-Net, Figure 6": {"variant": "figure"},
    "U-Net in two dimensions": {
        "dimensions": 2,
        "attention": False,
        "supervision_heads": 0,
        "bottleneck_blocks": 0,
    },
}
rows = {}
for name, options in STEPS.items():
    network = keras_medseg.build("fmnet", **options)
    rows[name] = {
        "trainable parameters": f"{sum(np.prod(w.shape) for w in network.trainable_variables):,}",
        "outputs": len(network.outputs),
        "arguments of build": ", ".join(f"{k}={v!r}" for k, v in options.items()),
    }
    del network
pd.DataFrame(rows).T

# %% [markdown]
# ## 2. How the code differs from the paper
#
# A decoder stage has two inputs: the *skip* from the encoder, and the *up-sampled* features of the
# level below. A gate computes from both a weight between 0 and 1 for every voxel of the skip. "The
# cross-attention calculation occurs between the output of the encoder layer and the previous
# layer's output, which is then concatenated with the input to the decoder": so the stage should get
# the concatenation [gated skip, up-sampled features]. In the code it gets [skip, gated skip].
#
# The figure shows both, with a measurement on the arrows. A small network of each kind (8 filters,
# untrained) gets a crop of a synthetic patient. Then the features that the last stage gets from
# below are set to zero. The numbers are the relative change of each half of the stage's input: the
# norm of the change, divided by the norm of that half before.

# %%
patient = brain.brats_case(seed=0, index=1, shape=(120, 120, 77))
middle = tuple(slice(size // 2 - 16, size // 2 + 16) for size in patient.labels.shape)
crop = patient.image[middle].astype("float32")
crop = ((crop - crop.mean((0, 1, 2))) / crop.std((0, 1, 2)))[None]


def build_small(**options):
    keras.utils.set_random_seed(0)
    return keras_medseg.build("fmnet", input_shape=(32, 32, 32, 4), filters=8, **options)


def last_stage(network):
    """The skip and the features from below, and a model from these two to the stage's input."""
    tensors = [network.get_layer(f"{name}_conv2_leaky").output for name in ("Encode1", "Decode3")]
    found = [part.numpy() for part in keras.Model(network.input, tensors)(crop)]
    return *found, keras.Model(tensors, network.get_layer("Concat4").output)


def halves(stage, skip, below):
    """The stage's input, (32, 32, 32, 8) twice: first and second part of the concatenation."""
    return np.split(stage([skip, below]).numpy()[0], 2, axis=-1)


def relative_change(before, after):
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


DIRECTIONS = 60


def singular_values(stage, skip, below):
    """Of the changes at one voxel for random changes of `below`, the largest first."""
    rng = np.random.default_rng(0)
    seen = []
    for size in (0, *[0.1] * DIRECTIONS):
        moved = below + np.float32(size) * rng.standard_normal(below.shape, dtype="float32")
        seen.append(np.concatenate([part[16, 16, 16] for part in halves(stage, skip, moved)]))
    return np.linalg.svd(np.array(seen[1:]) - seen[0], compute_uv=False)


KINDS = {
    "code": {},
    "paper": {"variant": "paper"},
    "plain U-Net": {"attention": False},
}
small = {name: build_small(**options) for name, options in KINDS.items()}
before, after, singular = {}, {}, {}
for name, network in small.items():
    skip, below, stage = last_stage(network)
    before[name] = halves(stage, skip, below)
    after[name] = halves(stage, skip, np.zeros_like(below))
    singular[name] = singular_values(stage, skip, below)
changed = {
    name: [relative_change(b, a) for b, a in zip(before[name], after[name])] for name in small
}


# %%
GRAY, BLUE, RED = "#DDDDDD", "#0072B2", "#D55E00"


def box(panel, x, y, text, color=GRAY):
    frame = {"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "black"}
    panel.text(x, y, text, ha="center", va="center", bbox=frame)


def arrow(panel, start, end, text="", color="black", at=0.5, side=0.22, ends=(22, 24)):
    line = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6}
    line |= {"shrinkA": ends[0], "shrinkB": ends[1]}
    panel.annotate("", xy=end, xytext=start, arrowprops=line)
    x, y = (a + at * (b - a) for a, b in zip(start, end))
    panel.text(x, y + side, text, ha="center", va="center", color=color)


def draw_stage(panel, kind):
    """The last decoder stage, and how each half of its input depends on the level below."""
    first, second = changed[kind]
    skip, below, up = (0, 3), (0, 0), (2.6, 0)
    gate, joined, stage = (4.4, 1.5), (7.1, 1.5), (9.5, 1.5)
    where = {"skip\n8 maps": skip, "from\nbelow": below, "up": up, "gate": gate}
    for text, place in {**where, "concatenate": joined, "stage 4": stage}.items():
        box(panel, *place, text, "#CCE5F5" if text == "gate" else GRAY)
    arrow(panel, below, up)
    arrow(panel, skip, gate, color=BLUE)
    if kind == "code":
        arrow(panel, skip, joined, f"skip: {first:.0%}", side=0.45)
        arrow(panel, up, gate, color=BLUE)
        text = f"gated skip:\n{second:.1%}"
        arrow(panel, gate, joined, text, color=BLUE, at=0.4, side=-0.62, ends=(18, 42))
    else:
        arrow(panel, (0.3, 0), gate, color=BLUE)
        text = f"gated skip:\n{first:.1%}"
        arrow(panel, gate, joined, text, color=BLUE, at=0.4, side=0.6, ends=(18, 42))
        arrow(panel, up, joined, f"up-sampled: {second:.0%}", color=RED, at=0.6, side=-0.5)
    arrow(panel, joined, stage, ends=(42, 28))
    panel.set(xlim=(-0.9, 10.2), ylim=(-0.7, 3.7), title=f'variant="{kind}"')
    panel.set_axis_off()


def draw_heads(panel, kind):
    """The four decoder stages of a 128^3 crop and where the outputs are taken from."""
    network = small[kind]
    heads = ("Output", "Supervision1", "Supervision2")
    source = {head: network.get_layer(f"{head}_conv").input.name for head in heads}
    for stage in range(1, 5):
        tensor = network.get_layer(f"Decode{stage}_conv2_leaky").output
        voxels, channels = 4 * tensor.shape[1], 4 * tensor.shape[-1]
        x = 2.5 * stage
        box(panel, x, 0, f"stage {stage}\n{voxels}$^3$, {channels} maps")
        named = [head for head in heads if source[head] == tensor.name]
        for number, head in enumerate(named):
            color = "#CFEBDD" if head == "Output" else "#F5E3C5"
            text = head.replace("Output", "main").replace("Supervision", "head ")
            place = (x + 1.1 * (number - (len(named) - 1) / 2), 1.7)
            box(panel, *place, text, color)
            panel.annotate(
                "",
                xy=place,
                xytext=(x, 0),
                arrowprops={"arrowstyle": "-|>", "shrinkA": 18, "shrinkB": 12},
            )
    panel.set(xlim=(1.2, 11.4), ylim=(-0.8, 2.3))
    panel.set_axis_off()


figure, panels = plt.subplots(2, 2, figsize=(13, 5.4), layout="constrained", height_ratios=(1.7, 1))
for column, kind in zip(panels.T, ("code", "paper")):
    draw_stage(column[0], kind)
    draw_heads(column[1], kind)

# %% [markdown]
# Above: in the code, the features from below influence the stage only through the gate (blue).
# Below: the stages that the outputs are computed from. The code's second head uses the same feature
# maps as the main output; the heads of text and Figure 6 sit one level deeper.
#
# The next figure shows the same change map by map. Each panel is one of the 16 feature maps of the
# stage's input, on the middle slice: the absolute difference when the features from below are set
# to zero. White means no change. All panels of a row have the same scale. (The dots come from the
# transposed convolution of the paper's network.)

# %%
figure, panels = plt.subplots(2, 16, figsize=(13, 2.5), layout="compressed")
for row, kind in zip(panels, ("code", "paper")):
    parts = [np.abs(a - b)[:, :, 16] for b, a in zip(before[kind], after[kind])]
    maps = np.concatenate(parts, axis=-1)
    for number, panel in enumerate(row):
        shown = panel.imshow(maps[..., number].T, cmap="Blues", vmin=0, vmax=maps.max())
        panel.set(xticks=[], yticks=[], title=number + 1)
    row[0].set_ylabel(kind)
    figure.colorbar(shown, ax=row, pad=0.01)

# %% [markdown]
# In the code, the first eight maps (the skip) do not change at all. The last eight change together,
# because one number per voxel multiplies them all. How many independent numbers reach a voxel from
# below? To measure this, the features from below are changed in 60 random directions, and the
# changes of the 16 inputs of the stage at one voxel are recorded. The number of singular values of
# these changes that are not zero is the number of independent directions: the rank of the map from
# below into this voxel.

# %%
figure, panel = plt.subplots(figsize=(7, 2.6), layout="constrained")
places = np.arange(1, 17)
for offset, (kind, color) in enumerate(zip(KINDS, (BLUE, RED, "#999999"))):
    values = singular[kind] / singular[kind][0]
    label = f"{kind}: {int((values > 1e-4).sum())}"
    panel.bar(places + 0.28 * (offset - 1), values, 0.26, color=color, label=label)
panel.set(yscale="log", ylim=(1e-8, 3), xticks=places, ylabel="relative to the first")
panel.set(xlabel="singular value", title="Directions from below into a voxel of the last stage")
panel.axhline(1e-4, color="black", lw=0.8, ls=":")
panel.spines[["top", "right"]].set_visible(False)
_ = panel.legend(frameon=False, title="above the dotted line")

# %% [markdown]
# In the code there is one direction, whatever the width: all features from below reach the last
# stage as one number per voxel. The other singular values are rounding errors. A plain U-Net has as
# many directions as there are up-sampled feature maps; the paper's network has these and its gate.
# A test proves it too: if the last gate is constant, nothing below the first level of the code's
# network changes its output (`tests/models/test_fmnet.py`).
#
# This is a finding about the code, not a judgment of it: the published numbers come from this
# network. Section 5 shows what a trained network makes of that one number.
#
# ## 3. Crops and their augmentation
#
# "The data is cropped to (4, 128, 128, 128)." In the code, a new crop is drawn in every epoch. With
# a probability of 0.4 it is placed on a labeled object: a label is drawn, then one of its objects.
# Otherwise it is placed anywhere. The figure shows a patient at half the resolution, and the
# centers of 400 crops: of 64^3 voxels, which are the paper's 128^3 at this resolution, and of 32^3.

# %%
phantoms.write(work / "one", layout="BraTS2021", cases=1, size=(120, 120, 77))
one = store.prepare(DATASET.find(work / "one").cases, DATASET.read, work / "one_store")
(case,) = one.cases.values()
targets = tuple((region, DATASET.regions[region]) for region in REGIONS)
volume = volumes.read_volume(case, "z_score")
labels = case.full_labels()[tuple(slice(f, f + n) for f, n in zip(case.origin, volume.shape))]
z = figures.largest_slice(labels, labels)
FLAIR = DATASET.channels.index("flair")


def draw(panel, image, title="", **options):
    """Anterior on top, the patient's right on the left."""
    panel.imshow(image.T, **{"cmap": "gray", **options})
    panel.set(title=title, xticks=[], yticks=[])


def crops_of(size, **options):
    """Batches of one crop of `size`^3 voxels of the patient."""
    given = {"foreground_probability": 0.0, **options}
    return patches.PatchBatches(
        one, [case.id], targets, patch=(size,) * 3, batch_size=1, normalization="z_score", **given
    )


def show_crops(panel, size, probability):
    """The centers of 400 crops, and the mean share of the tumor that a crop contains."""
    feed = crops_of(size, foreground_probability=probability)
    starts = np.array([feed.start(epoch, 0) for epoch in range(400)])
    held = [np.count_nonzero(labels[tuple(slice(f, f + size) for f in s)]) for s in starts]
    share = np.mean(held) / np.count_nonzero(labels)
    draw(panel, volume[:, :, z, FLAIR], vmax=3, alpha=0.5)
    panel.contour((labels[:, :, z] > 0).T, levels=[0.5], colors="#E69F00", linewidths=1)
    panel.plot(*(starts[:, :2] + size / 2).T, ".", color=BLUE, ms=3, alpha=0.6)
    panel.set_title(f"{size}$^3$, probability {probability}:\n{share:.0%} of the tumor in a crop")


figure, panels = plt.subplots(1, 5, figsize=(13, 3.4), layout="compressed")
draw(panels[0], volume[:, :, z, FLAIR], "FLAIR and whole tumor", vmax=3)
panels[0].contour((labels[:, :, z] > 0).T, levels=[0.5], colors="#E69F00", linewidths=1)
for panel, (size, probability) in zip(panels[1:], [(64, 0.0), (64, 0.4), (32, 0.0), (32, 0.4)]):
    show_crops(panel, size, probability)

# %% [markdown]
# Such a large crop contains nearly all of the tumor wherever it lies. The bias towards objects
# matters for small crops, such as those of section 4. Then six augmentations follow in the authors'
# order, each with its own probability. The figure shows each of them alone, at the strongest
# setting that the code allows (flips: along x). Zooming enlarges the middle 70 % of image and
# annotation.

# %%
x, y = crops_of(64, crops="center").batch(0, 0)
options = augment_volumes.with_defaults(RECIPE.data.augmentation)
neutral = augment_volumes.draw_parameters(0, 0, 1, {}, (64, 64, 64))
extent = round(64 * options["zoom"]["scale"][0])
STRONGEST = {
    "zoom": {"extent_x": extent, "extent_y": extent, "extent_z": extent},
    "flips": {"flip_x": 1},
    "noise": {"noise_sigma": options["noise"]["sigma"][1]},
    "blur": {"blur_sigma": options["blur"]["sigma_voxels"][1]},
    "brightness": {"brightness": options["brightness"]["factor"][1]},
    "contrast": {"contrast": options["contrast"]["factor"][1]},
}
z_crop = figures.largest_slice(y[0, ..., 0], y[0, ..., 0])
figure, panels = plt.subplots(1, 7, figsize=(13, 2.5), layout="compressed")
for panel, name in zip(panels, ("crop", *options)):
    drawn = neutral.copy()
    for column, value in STRONGEST.get(name, {}).items():
        drawn[0, augment_volumes.COLUMNS.index(column)] = value
    chosen = {name: options[name]} if name in options else {}
    image = augment_volumes.augment_image(np, x, drawn, chosen)
    mask = augment_volumes.augment_targets(np, y, drawn, chosen)
    title = name if name == "crop" else f"{name}, p {options[name]['probability']}"
    draw(panel, image[0, :, :, z_crop, FLAIR], title, vmin=-3, vmax=5)
    panel.contour(mask[0, :, :, z_crop, 0].T, levels=[0.5], colors="#E69F00", linewidths=1)

# %% [markdown]
# Every crop and every random number follows from (seed, epoch, case) alone, so any process can
# compute any of them, in any order. The paper gained most of its speed by moving this work to the
# GPU. Here the same functions run either in NumPy or, with `data.augment_on_device=True`, within
# the training step on the accelerator. Both give the same values:

# %%
drawn = augment_volumes.draw_parameters(3, 0, 4, options, (64, 64, 64))
four = np.repeat(x, 4, axis=0)
ours = augment_volumes.augment_image(np, four, drawn, options)
theirs = keras.ops.convert_to_numpy(
    augment_volumes.augment_image(keras.ops, keras.ops.convert_to_tensor(four), drawn, options)
)
print(
    f"largest difference: {np.abs(ours - theirs).max():.1e}, of values to {np.abs(ours).max():.1f}"
)

# %% [markdown]
# ## 4. A short training
#
# The paper's recipe has 54 million parameters, crops of 128^3 voxels, and 70 epochs of 1000 cases.
# Here there are 24 synthetic patients at a quarter of the resolution, crops of 32^3 voxels, and a
# network of a quarter of the width. It is trained in float32, because half precision gains nothing
# on a CPU. A recipe is plain data, so its differences from the paper's can be listed:

# %%
changes = {
    "data.validation": 0.2,
    "data.test": 0.0,
    "data.patch": (32, 32, 32),
    "data.augment_on_device": False,
    "model.options.filters": 8,
    "train.batch_size": 2,
    "train.epochs": 30,
    "train.learning_rate": 5e-3,
    "train.precision": "float32",
}
short = recipe.override(RECIPE, changes)
table = pd.DataFrame(recipe.differences(short, RECIPE), index=["here", "paper"])
table.T[["paper", "here"]].map(str)

# %% [markdown]
# `experiment.run` is what the command line calls too: it draws the synthetic patients, decodes
# them, splits them, trains, predicts the validation cases, scores them and writes a report, all
# into one run folder. Its progress is printed below when it is done.

# %%
shortened = replace(
    PAPER,
    profiles={"notebook": experiment.Profile(changes, {"fmnet": {}})},
    phantom=replace(PAPER.phantom, cases=24, size=(64, 64, 48)),
)
request = experiment.Request(
    out=work / "run", folder=None, profile="notebook", command="this notebook", work=work
)
with contextlib.redirect_stdout(io.StringIO()) as printed:
    experiment.run(shortened, request)
print(printed.getvalue().partition("\n# ")[0])  # without the report's tables
run = RunFolder(request.out)
cohort = report.open_cohort(run)

# %% [markdown]
# The loss of an output is the sum of a Dice loss and a focal loss over the three regions. The three
# outputs have the weights 1, 1/2 and 1/4, divided by their sum. "The model saved is the one that
# corresponds to the best validation result": the code keeps the weights of the epoch with the
# lowest validation loss, and so does `train.keep="best"`, the recipe's setting. The authors then
# score cases of another folder. Here, the same validation cases choose the epoch and are scored,
# which makes the scores a little too good.

# %%
log = run.logs()["fmnet-WT+TC+ET"]
best = best_epoch(log.to_dict("records"))
figure, panel = plt.subplots(figsize=(6, 2.6), layout="constrained")
panel.plot(log["epoch"], log["loss"], color=BLUE, label="augmented random crops, training")
panel.plot(log["epoch"], log["val_loss"], color=BLUE, ls="--", label="center crops, validation")
panel.axvline(best, color="#999999", lw=1)
panel.text(best, panel.get_ylim()[1], f" kept: epoch {best}", va="top", ha="right", rotation=90)
panel.set(xlabel="epoch", ylabel="loss")
panel.legend(frameon=False)
panel.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ### Main output and heads
#
# The report's figure shows them on a crop around the center of a validation case, in the order of
# the paper's Figure 11. By the authors' script its "first" output is the head at full resolution,
# which reads the same features as the main output, and its "second" the coarser one: the
# progression "from the first to the second" in which "the non-segmented parts are further masked
# out" runs against the decoder. The share of the probability that lies outside of the annotation
# stands above each panel.

# %%
Image(run.figure("supervision").read_bytes(), width=850)

# %% [markdown]
# ## 5. What the trained network makes of its gates
#
# In the code, the features from below reach a decoder stage as one number per voxel. Left: that
# number at each stage, on the same slice. Right: the soft Dice of the validation crops when the
# features below one stage are set to zero, and nothing else is changed.

# %%
trained = run.network("fmnet", REGIONS, auxiliary=True)
task = run.variant("fmnet").task
validation = task.batches(cohort.store, cohort.validation, REGIONS, training=False)
parts = [validation.batch(0, step) for step in range(validation.steps_per_epoch)]
images, masks = (np.concatenate(part) for part in zip(*parts))
BELOW = {1: "Bottleneck2_conv2_leaky", **{n: f"Decode{n - 1}_conv2_leaky" for n in (2, 3, 4)}}


def dice_without(stage):
    """Soft Dice of every region with zeros below this stage; 0: of the network as it is."""
    if not stage:
        predicted = trained(images)[0]
    else:
        below = trained.get_layer(BELOW[stage]).output
        cut = keras.Model([trained.input, below], trained.outputs[0])
        predicted = cut([images, np.zeros((len(images), *below.shape[1:]), "float32")])
    return soft_dice(masks, keras.ops.convert_to_numpy(predicted))


cuts = {"nothing": 0, **{f"into stage {stage}": stage for stage in BELOW}}
by_cut = pd.DataFrame({name: dice_without(stage) for name, stage in cuts.items()}, index=REGIONS)

figure = plt.figure(figsize=(13, 3), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1.9, 1))
panels = left.subplots(1, 5)
z = figures.largest_slice(masks[0, ..., 0], masks[0, ..., 0])
draw(panels[0], images[0, :, :, z, FLAIR], "FLAIR and whole tumor")
panels[0].contour(masks[0, :, :, z, 0].T, levels=[0.5], colors="#E69F00", linewidths=1)
gates = keras.Model(
    trained.input, [trained.get_layer(f"Gate{stage}_sigmoid").output for stage in BELOW]
)
for stage, (panel, gate) in enumerate(zip(panels[1:], gates(images[:1])), 1):
    gate = gate.numpy()[0, :, :, z * gate.shape[3] // 32, 0]
    title = f"gate {stage}, {len(gate)}$^3$:\n{gate.min():.2f} to {gate.max():.2f}"
    draw(panel, gate, title, cmap="viridis")
bars = right.subplots()
colors = style.region_colors(REGIONS)
for number, (region, line) in enumerate(by_cut.iterrows()):
    places = np.arange(len(cuts)) + 0.26 * (number - 1)
    bars.bar(places, line, 0.24, color=colors[region], label=region)
bars.set_xticks(np.arange(len(cuts)), [name.replace("into ", "into\n") for name in cuts])
bars.set(ylabel="soft Dice", ylim=(0, 1), xlabel="set to zero: features")
bars.legend(frameon=False, ncols=3)
bars.spines[["top", "right"]].set_visible(False)

# %%
by_cut

# %% [markdown]
# The result of this run is clear. The features below stages 1 and 2, which include the bottleneck,
# can be set to zero without changing one digit of the table; those below stage 3 hardly change any.
# The network uses only the last gate, through which stage 3 influences stage 4. Without that gate
# it still finds tumor, from the encoder's first level alone, whose receptive field is a few voxels
# wide. A minute of training on synthetic patients proves nothing about 70 epochs on BraTS, but the
# same test can be made with any trained network of this kind.
#
# ## 6. Whole volumes
#
# The authors' code never predicts a whole volume. Here a volume is predicted in windows of the
# crop's size that overlap by half. Their predictions are averaged, with larger weights in the
# middle of a window than near its border. The weights along one axis:

# %%
case = cohort.store.cases[cohort.validation[0]]
volume = volumes.read_volume(case, short.data.normalization)
patch, overlap = short.data.patch, short.data.overlap
starts = sliding_window.window_starts(volume.shape[:3], patch, overlap)
print(f"box {volume.shape[:3]} of {case.full_shape}: {len(starts)} windows of {patch}")
first_of_axis = sorted({start[0] for start in starts})
weights = sliding_window.importance_map((patch[0],), "gaussian")
total = np.zeros(volume.shape[0])
for start in first_of_axis:
    total[start : start + patch[0]] += weights
figure, panel = plt.subplots(figsize=(7, 2.3), layout="constrained")
for number, start in enumerate(first_of_axis, 1):
    places = np.arange(start, start + patch[0])
    panel.plot(places, weights / total[places], label=f"window {number}")
panel.set(xlabel="x (voxels of the box)", ylabel="weight in the average", ylim=(0, 1.05))
panel.legend(frameon=False)
panel.spines[["top", "right"]].set_visible(False)

# %%
main = run.network("fmnet", REGIONS)
predicted = sliding_window.predict_volume(main, volume, patch=patch, overlap=overlap)
in_threes = sliding_window.predict_volume(main, volume, patch=patch, overlap=overlap, batch_size=3)
change = np.abs(predicted - in_threes).max()
print(f"three windows in a batch instead of one: largest change {change:.1e}")


# %% [markdown]
# The case with the median Dice of all regions. From left to right: FLAIR, annotation, probabilities
# of the whole tumor from the one window that contains most of it, probabilities from all windows,
# and the label map that the run has written as NIfTI: on the full grid, with the label codes and
# the affine of the case's own files.

# %%
scores = run.scores()
chosen = pick_cases(scores, "fmnet")["median"]
case = cohort.store.cases[chosen]
volume = volumes.read_volume(case, short.data.normalization)
inside = tuple(slice(f, f + n) for f, n in zip(case.origin, volume.shape))
truth = case.full_labels()[inside]
found = DATASET.read_labels(run.prediction("fmnet", chosen), case)[inside]
starts = sliding_window.window_starts(volume.shape[:3], patch, overlap)
windows = [tuple(slice(f, f + n) for f, n in zip(start, patch)) for start in starts]
window = max(windows, key=lambda window: np.count_nonzero(truth[window]))
alone = np.full(volume.shape[:3], np.nan)
alone[window] = main.predict_on_batch(volume[window][None])[0, ..., 0]
together = sliding_window.predict_volume(main, volume, patch=patch, overlap=overlap)[..., 0]
z = figures.largest_slice(truth[window], truth[window]) + window[2].start


def paint(panel, labels):
    for code, color in style.label_colors(DATASET.labels).items():
        mask = (labels == code).T
        painted = plt.matplotlib.colors.ListedColormap([color])
        panel.imshow(np.ma.masked_where(~mask, mask), cmap=painted)
        panel.plot([], [], "s", color=color, label=DATASET.labels[code])


figure, panels = plt.subplots(1, 5, figsize=(13, 3.4), layout="compressed")
flair = volume[:, :, z, FLAIR]
draw(panels[0], flair, f"{chosen}\nFLAIR, slice {z}", vmax=3)
draw(panels[1], flair, "annotation", vmax=3)
paint(panels[1], truth[:, :, z])
draw(panels[2], alone[:, :, z], "whole tumor, one window", vmin=0, vmax=1)
draw(panels[3], together[:, :, z], f"whole tumor, {len(windows)} windows", vmin=0, vmax=1)
dice = scores[scores["case"] == chosen].set_index("region")["dice"]
title = ", ".join(f"{region} {value:.2f}" for region, value in dice.items())
draw(panels[4], flair, f"label map; Dice of the case\n{title}", vmax=3)
paint(panels[4], found[:, :, z])
figure.colorbar(panels[3].images[0], ax=panels[4], label="probability", shrink=0.7)
handles = panels[4].get_legend_handles_labels()
_ = figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)

# %% [markdown]
# ## 7. Two scores
#
# **The authors' score.** Their test cases go through the training pipeline: crops are random, lie
# on a tumor more often than by chance, and are augmented. The probabilities are not thresholded,
# and a whole batch is scored as if it were one image. Table II has this score.
#
# **The usual score.** Whole cases are scored, with a threshold of 1/2, and every case counts once:
# Dice and the 95th percentile of the surface distances by the rules of the challenge. Other papers
# have this score.

# %%
crops = pd.read_csv(run.path / "crop_scores.csv")
published = tables.read_published("experiments/fmnet2023/published.csv")
table_two = published[published["table"] == "Table II"].set_index(["metric", "region"])["value"]
rows = {}
for region in REGIONS:
    of_region = scores[scores["region"] == region]["dice"]
    of_crops = crops[crops["region"] == region]["crop_dice"].iloc[0]
    rows[f"Dice {region}"] = {
        "Table II": table_two["crop_dice", region],
        "the authors' score, here": of_crops,
        "the usual score, here": of_region.mean(),
    }
rows["loss"] = {
    "Table II": table_two["loss", ""],
    "the authors' score, here": crops["loss"].dropna().iloc[0],
}
pd.DataFrame(rows).T.map(lambda value: "" if np.isnan(value) else f"{value:.3f}")

# %% [markdown]
# Only the middle column may stand beside Table II, and only after the recipe has run on BraTS 2021:
# these are synthetic patients and a minute of training. The right column is another quantity, which
# the paper does not give. So no number of Table II can be compared with other papers' numbers.
#
# A third question is on which scale a loss is. The code scores 2-D networks slice by slice, and a
# batch of slices without a region costs about 1 for it, whatever is predicted. On the same crops
# and the same probabilities of this run's network:

# %%
losses_of_crops = crops[["loss", "loss_by_slice", "main_loss"]].dropna().iloc[0]
losses_of_crops.rename(
    {
        "loss": "pooled over batches of crops, weighted mean of three outputs",
        "loss_by_slice": "pooled over batches of slices, the same outputs",
        "main_loss": "pooled over batches of crops, the main output alone",
    }
).to_frame("loss")

# %% [markdown]
# "The model's capability to detect the absence of tumors" (Figure 7) is a number, too: of the
# slices of the brain without a region, the share that is left empty, and the voxels that are
# predicted in one.

# %%
absence = pd.read_csv(run.path / "absence.csv")
absence.groupby("region", sort=False)[["left_empty", "false_voxels"]].mean()

# %% [markdown]
# The scores of the whole tumor for every validation case:

# %% tags=["scores"]
columns_of_table = ["dice", "sensitivity", "specificity", "hd95_mm"]
whole = scores[scores["region"] == "WT"].set_index("case")
whole[columns_of_table].map("{:.3f}".format)

# %% [markdown]
# ## 8. The paper's experiments
#
# A variant is nothing but a set of changes to the recipe. The variants in two dimensions see the
# slices of the same crops, and some of them those of a single modality. The ablations train for the
# 30 epochs that the curves of Figure 4 have.

# %%
answers = {}
for spec in PAPER.tables:
    for row in spec.rows:
        label = ", ".join(filter(None, (row.label, row.variant)))
        answers.setdefault(row.measured, []).append(f"{spec.id}: {label}")
every_variant = PAPER.profiles["paper"].variants


def listed(name):
    """A variant's changes; those that it shares with a smaller variant by that variant's name."""
    own = every_variant[name]
    smaller = [k for k, v in every_variant.items() if 0 < len(v) < len(own)]
    contained = [k for k in smaller if every_variant[k].items() <= own.items()]
    base = max(contained, key=lambda other: len(every_variant[other]), default=None)
    shown = [f"those of {tables.spaced(base)}"] if base else []
    shared = every_variant[base] if base else {}
    return shown + [f"`{field}={own[field]}`" for field in own if field not in shared]


lines = ["| variant | changes | rows |", "|:--|:--|:--|"]
for name in every_variant:
    shown, rows = "<br>".join(listed(name)) or "none", "<br>".join(answers.get(name, []))
    lines.append(f"| {tables.spaced(name)} | {shown} | {rows} |")
Markdown("\n".join(lines))

# %% [markdown]
# `python -m benchmarks.fmnet_loading` measures Table I: the seconds per epoch with half precision
# and with augmentation on the accelerator. The numbers above cannot be compared with the paper's.
# The report of every run says why, in these words:

# %%
measured = RunData(run.recipe, run.provenance(), scores, run.logs())
reasons = why_not_comparable(measured, PAPER.reference)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %%
temporary.cleanup()

# %% [markdown]
# ## 9. With real data
#
# The organizers of the challenge give out BraTS after registration. Name the folder; the cases may
# lie some levels below it:
#
# ```
# keras-medseg check /path/to/BraTS2021       every problem of every case
# make reproduce-fmnet2023 DATA=/path/to/BraTS2021
# ```
#
# That is the authors' recipe with all its ablations, best done on a GPU. The same command continues
# an interrupted run, and the run ends with `report.html`.
# `python -m experiments fmnet2023 --compare` trains NVIDIA's optimized U-Net, the paper's
# benchmark, instead of the ablations.
#
# Where to go from here: train the network of the text (`SET="model.options.variant=paper"`) and
# repeat the test of section 5; train on one modality (`SET="data.modalities=('t1ce',)"`); or use
# the parts in your own code:
# `keras_medseg.build("fmnet", input_shape=(None, None, None, 4), supervision_heads=0)` is a Keras
# model for volumes whose sizes are multiples of 16.
