# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # FM-Net: an attention U-Net in three dimensions, and two readings of it
#
# Brain tumours in MRI, segmented volume by volume, after a report of 2023 by Yilmaz and Arslan
# (Bilkent University). It is a U-Net with gates on its skips, a bottleneck, and supervised decoder
# stages. The authors' PyTorch code is public, and it is not what the text describes. Both are here:
# `variant="code"` gave the paper's numbers, `variant="paper"` is what the text and Figure 6 say.
#
# This notebook shows where the two part, measured on the networks themselves; how crops are cut and
# changed; a short training; whole volumes by overlapping windows; and two scores, of which one
# stands beside the paper's table and the other can be compared with anybody else's. It needs no
# data and no network: the patients are synthetic.
#
# What is open, and how it was settled, stands in `experiments/fmnet2023/ledger.toml`, one entry per
# statement of the paper or of its code.

# %%
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if Path.cwd().name == "notebooks":
    os.chdir("..")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown

import keras_medseg
from experiments.fmnet2023 import crop_scores
from experiments.fmnet2023 import figures as paper_figures
from experiments.fmnet2023.recipe import EXPERIMENT, RECIPE
from keras_medseg import recipe
from keras_medseg.data import store
from keras_medseg.data.batches import patches
from keras_medseg.data.datasets import brats
from keras_medseg.data.transforms import augment_volumes, volumes
from keras_medseg.inference import sliding_window
from keras_medseg.phantoms import brain
from keras_medseg.phantoms import brats as phantom
from keras_medseg.reporting import figures, report
from keras_medseg.runs import steps
from keras_medseg.training import fit

plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.3f}".format
pd.options.display.width = 100
pd.options.display.max_colwidth = 80
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)
(REGIONS,) = RECIPE.model.networks

# %% [markdown]
# ## 1. The network
#
# Five levels of 32 to 512 channels, 3x3x3 convolutions, instance norm, leaky ReLU. Every part is an
# argument of `build`, so the steps of the paper's Figure 4 are too. The counts of the code are
# those of the authors' networks, to the last parameter; the tests compare their outputs as well.

# %%
STEPS = {
    "U-Net": {"attention": False, "supervision_heads": 0, "bottleneck_blocks": 0},
    "Attention U-Net": {"supervision_heads": 0, "bottleneck_blocks": 0},
    "with deep supervision": {"bottleneck_blocks": 0},
    "FM-Net, the code": {},
    "FM-Net, the paper": {"variant": "paper"},
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
# ## 2. What code and paper do differently
#
# A decoder stage gets two things: the *skip* from the encoder, and what *comes up* from the level
# below. A gate looks at both and gives every voxel of the skip a weight between 0 and 1. "The
# cross-attention calculation occurs between the output of the encoder layer and the previous
# layer's output, which is then concatenated with the input to the decoder": so the stage should get
# [gated skip, what comes up]. In the code it gets [skip, gated skip].
#
# Below, both are drawn, with a measurement on the arrows. A small network of each kind (8 filters,
# weights as they are drawn at the start) sees a crop of a synthetic patient; then the maps that the
# last stage gets from below are set to zero. The numbers say how much of each half of the stage's
# input changed, as a part of its length.

# %%
patient = brain.brats_case(seed=0, index=1, shape=(120, 120, 77))
middle = tuple(slice(size // 2 - 16, size // 2 + 16) for size in patient.labels.shape)
crop = patient.image[middle].astype("float32")
crop = ((crop - crop.mean((0, 1, 2))) / crop.std((0, 1, 2)))[None]


def build_small(**options):
    keras.utils.set_random_seed(0)
    return keras_medseg.build("fmnet", input_shape=(32, 32, 32, 4), filters=8, **options)


def last_stage(network):
    """The skip and what lies below, and a model from these two to the stage's input."""
    tensors = [network.get_layer(f"{name}_conv2_leaky").output for name in ("Encode1", "Decode3")]
    found = [part.numpy() for part in keras.Model(network.input, tensors)(crop)]
    return *found, keras.Model(tensors, network.get_layer("Concat4").output)


def halves(stage, skip, below):
    """What the stage gets, (32, 32, 32, 8) twice: first and second part of the concatenation."""
    return np.split(stage([skip, below]).numpy()[0], 2, axis=-1)


def part_changed(before, after):
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


DIRECTIONS = 60


def singular_values(stage, skip, below):
    """Of the changes at one voxel when `below` moves at random, the largest first."""
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
before, after, ways = {}, {}, {}
for name, network in small.items():
    skip, below, stage = last_stage(network)
    before[name] = halves(stage, skip, below)
    after[name] = halves(stage, skip, np.zeros_like(below))
    ways[name] = singular_values(stage, skip, below)
changed = {name: [part_changed(b, a) for b, a in zip(before[name], after[name])] for name in small}


# %%
GREY, BLUE, RED = "#DDDDDD", "#0072B2", "#D55E00"


def box(panel, x, y, text, colour=GREY):
    style = {"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "black"}
    panel.text(x, y, text, ha="center", va="center", bbox=style)


def arrow(panel, start, end, text="", colour="black", at=0.5, side=0.22, ends=(22, 24)):
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6}
    style |= {"shrinkA": ends[0], "shrinkB": ends[1]}
    panel.annotate("", xy=end, xytext=start, arrowprops=style)
    x, y = (a + at * (b - a) for a, b in zip(start, end))
    panel.text(x, y + side, text, ha="center", va="center", color=colour)


def draw_stage(panel, kind):
    """The last decoder stage, and how much of either half of its input hangs on what comes up."""
    first, second = changed[kind]
    skip, below, up = (0, 3), (0, 0), (2.6, 0)
    gate, joined, stage = (4.4, 1.5), (7.1, 1.5), (9.5, 1.5)
    where = {"skip\n8 maps": skip, "from\nbelow": below, "up": up, "gate": gate}
    for text, place in {**where, "concatenate": joined, "stage 4": stage}.items():
        box(panel, *place, text, "#CCE5F5" if text == "gate" else GREY)
    arrow(panel, below, up)
    arrow(panel, skip, gate, colour=BLUE)
    if kind == "code":
        arrow(panel, skip, joined, f"skip: {first:.0%}", side=0.45)
        arrow(panel, up, gate, colour=BLUE)
        text = f"gated skip:\n{second:.1%}"
        arrow(panel, gate, joined, text, colour=BLUE, at=0.4, side=-0.62, ends=(18, 42))
    else:
        arrow(panel, (0.3, 0), gate, colour=BLUE)
        text = f"gated skip:\n{first:.1%}"
        arrow(panel, gate, joined, text, colour=BLUE, at=0.4, side=0.6, ends=(18, 42))
        arrow(panel, up, joined, f"what comes up: {second:.0%}", colour=RED, at=0.6, side=-0.5)
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
            colour = "#CFEBDD" if head == "Output" else "#F5E3C5"
            text = head.replace("Output", "main").replace("Supervision", "head ")
            place = (x + 1.1 * (number - (len(named) - 1) / 2), 1.7)
            box(panel, *place, text, colour)
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
# Above: in the code nothing of what comes up reaches the stage but through the gate (blue). Below:
# where the outputs are taken. The code's second head reads the very maps of the main output, the
# paper's heads (Figure 6) sit one level deeper.
#
# The same change, map by map: each panel is one of the 16 maps that the stage gets, on the middle
# slice, and shows by how much it differs when nothing comes up; white is no change. All panels of a
# row have one scale. (The dots are those of the paper's transposed convolution.)

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
# In the code the first eight maps, the skip, do not change at all; the last eight change together,
# for one number per voxel moves them all. How many numbers? We move what lies below in 60 random
# directions, look at the 16 numbers that the stage gets at one voxel, and take the singular values
# of these changes: as many as are not zero, so many ways there are from below into this voxel.

# %%
figure, panel = plt.subplots(figsize=(7, 2.6), layout="constrained")
places = np.arange(1, 17)
for offset, (kind, colour) in enumerate(zip(KINDS, (BLUE, RED, "#999999"))):
    values = ways[kind] / ways[kind][0]
    open_ways = int((values > 1e-4).sum())
    label = f"{kind}: {open_ways}"
    panel.bar(places + 0.28 * (offset - 1), values, 0.26, color=colour, label=label)
panel.set(yscale="log", ylim=(1e-8, 3), xticks=places, ylabel="relative to the first")
panel.set(xlabel="singular value", title="Ways from below into a voxel of the last stage")
panel.axhline(1e-4, color="black", lw=0.8, ls=":")
panel.spines[["top", "right"]].set_visible(False)
_ = panel.legend(frameon=False, title="above the dotted line")

# %% [markdown]
# One way in the code, whatever the width: all that lies below speaks to the last stage through one
# number per voxel; what is left beside it is rounding. A plain U-Net has as many ways as maps come
# up, the paper's network those and its gate. The tests hold this too: with the last gate constant,
# nothing below the code's first level has a say (`tests/models/test_fmnet.py`).
#
# That is a finding about the code, not a judgement: the published numbers are its numbers. Section
# 5 asks a trained network what it makes of that one number.
#
# ## 3. Crops and what is done to them
#
# "The data is cropped to (4, 128, 128, 128)." In the code that is a new crop in every epoch, placed
# with a probability of 0.4 on a labelled object, which is taken at random of a label that is taken
# at random; anywhere else otherwise. One patient at half the resolution, and the middles of 400
# crops: of 64^3 voxels, which are the paper's 128^3 at this resolution, and of 32^3.

# %%
phantom.write_brats(work / "one", cases=1, layout="BraTS2021", shape=(120, 120, 77))
found = brats.Brats().find(work / "one").cases
one = store.prepare(found, brats.Brats().read, work / "one_store")
(case,) = one.cases.values()
codes = {region: brats.REGIONS[region] for region in REGIONS}
volume = volumes.read_volume(case, "z_score")
labels = case.full_labels()[tuple(slice(f, f + n) for f, n in zip(case.origin, volume.shape))]
z = figures.largest_slice(labels, labels)
FLAIR = brats.MODALITIES.index("flair")


def draw(panel, picture, title="", **style):
    """Anterior on top, the patient's right on the left."""
    panel.imshow(picture.T, **{"cmap": "gray", **style})
    panel.set(title=title, xticks=[], yticks=[])


def show_crops(panel, size, probability):
    """Where 400 crops have their middle, and the mean part of the tumour that one holds."""
    options = {"foreground_probability": probability}
    feed = patches.PatchBatches(one, [case.id], codes, (size,) * 3, **options)
    starts = np.array([feed.start(epoch, 0) for epoch in range(400)])
    held = [np.count_nonzero(labels[tuple(slice(f, f + size) for f in s)]) for s in starts]
    share = np.mean(held) / np.count_nonzero(labels)
    draw(panel, volume[:, :, z, FLAIR], vmax=3, alpha=0.5)
    panel.contour((labels[:, :, z] > 0).T, levels=[0.5], colors="#E69F00", linewidths=1)
    panel.plot(*(starts[:, :2] + size / 2).T, ".", color=BLUE, ms=3, alpha=0.6)
    panel.set_title(f"{size}$^3$, probability {probability}:\n{share:.0%} of the tumour in a crop")


figure, panels = plt.subplots(1, 5, figsize=(13, 3.4), layout="compressed")
draw(panels[0], volume[:, :, z, FLAIR], "FLAIR and whole tumour", vmax=3)
panels[0].contour((labels[:, :, z] > 0).T, levels=[0.5], colors="#E69F00", linewidths=1)
for panel, (size, probability) in zip(panels[1:], [(64, 0.0), (64, 0.4), (32, 0.0), (32, 0.4)]):
    show_crops(panel, size, probability)

# %% [markdown]
# So large a crop holds nearly all of the tumour wherever it lies; the bias matters to small ones,
# such as those of section 4. Then six augmentations in the authors' order, each with its own
# probability. Here is each of them alone, at the strongest that the code allows (flips: along x);
# zooming shows the middle 70 %, with the annotation enlarged alike.

# %%
plain = patches.PatchBatches(one, [case.id], codes, (64, 64, 64), crops="centre")
x, y = plain.batch(0, 0)
options = augment_volumes.complete(RECIPE.data.augmentation)
neutral = augment_volumes.draw(0, 0, 1, {}, (64, 64, 64))
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
# Every crop and every number follows from (seed, epoch, case), so it can be asked for by anybody,
# in any order. The paper gained most of its speed by moving this work to the GPU; here the same
# functions run in NumPy or, with `data.augment_on_device=True`, within the training step on the
# accelerator:

# %%
drawn = augment_volumes.draw(3, 0, 4, options, (64, 64, 64))
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
# The paper's recipe takes 54 million parameters, crops of 128^3, 70 epochs of 1000 cases. Here: 24
# synthetic patients at a quarter of the resolution, crops of 32^3, and a network of a quarter of
# the width, on float32, for a CPU has no use for half precision. What is shortened can be listed:

# %%
short = recipe.override(
    RECIPE,
    [
        "data.patch=(32, 32, 32)",
        "data.augment_on_device=False",
        "model.overrides.filters=8",
        "train.batch_size=2",
        "train.epochs=30",
        "train.learning_rate=5e-3",
        "train.precision=float32",
    ],
)
table = pd.DataFrame(recipe.differences(short, RECIPE), index=["here", "paper"])
table.T[["paper", "here"]].map(str)

# %%
phantom.write_brats(work / "phantom", cases=24, layout="BraTS2021", shape=(64, 64, 48))
data = steps.load_data(work / "phantom", work / "store", short)
print(f"{data.name}: {len(data.training)} to train on, {len(data.held_out)} held out")
run_folder = work / "run"
variants = {"fmnet": short}
steps.claim(run_folder, short, data, variants)
steps.train_variant("fmnet", short, data, run_folder)

# %% [markdown]
# Every region costs a Dice loss and a focal loss; the three regions are summed, and the three
# outputs weigh 1, 1/2 and 1/4, divided by their sum. "The model saved is the one that corresponds
# to the best validation result": the code keeps the weights of the lowest validation loss, and so
# does `train.keep="best"`, the recipe's setting. The authors then score cases of another folder;
# here the held-out patients are also those that are scored, so that choice makes the scores a
# little too good.

# %%
log = pd.read_csv(steps.training_folder(run_folder, "fmnet", REGIONS) / "log.csv")
best = fit.best_epoch(log.to_dict("records"))
figure, panel = plt.subplots(figsize=(6, 2.6), layout="constrained")
panel.plot(log["epoch"], log["loss"], color=BLUE, label="augmented random crops, training")
panel.plot(log["epoch"], log["val_loss"], color=BLUE, ls="--", label="centre crops, held out")
panel.axvline(best, color="#999999", lw=1)
panel.text(best, panel.get_ylim()[1], f" kept: epoch {best}", va="top", ha="right", rotation=90)
panel.set(xlabel="epoch", ylabel="loss")
panel.legend(frameon=False)
panel.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ### Main output and heads
#
# On the middle of a held-out patient. The first head sees half of the resolution, the second one
# the same maps as the main output.

# %%
(picture,) = paper_figures.head_figures(run_folder, data, short)
Image(picture.path.read_bytes(), width=850)

# %% [markdown]
# ## 5. What the trained network makes of its gates
#
# In the code a decoder stage hears of what lies below through one number per voxel. Left, that
# number at each stage, on the same slice. Right, what becomes of the soft Dice of the held-out
# crops when nothing comes up into one stage (the maps below it are zero) while all else stays.

# %%
trained = steps.load_network(run_folder, "fmnet", REGIONS, auxiliary=True)
held_out = steps.batches(short, data.store, data.held_out, REGIONS, training=False)
parts = [held_out.batch(0, step) for step in range(held_out.steps_per_epoch)]
images, targets = (np.concatenate(part) for part in zip(*parts))
BELOW = {1: "Bottleneck2_conv2_leaky", **{n: f"Decode{n - 1}_conv2_leaky" for n in (2, 3, 4)}}


def dice_without(stage):
    """Soft Dice of every region when the maps below this stage are zero; 0: of the network."""
    if not stage:
        predicted = trained(images)[0]
    else:
        below = trained.get_layer(BELOW[stage]).output
        cut = keras.Model([trained.input, below], trained.outputs[0])
        predicted = cut([images, np.zeros((len(images), *below.shape[1:]), "float32")])
    return crop_scores.soft_dice(targets, keras.ops.convert_to_numpy(predicted))


cuts = {"nothing": 0, **{f"into stage {stage}": stage for stage in BELOW}}
by_cut = pd.DataFrame({name: dice_without(stage) for name, stage in cuts.items()}, index=REGIONS)

figure = plt.figure(figsize=(13, 3), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1.9, 1))
panels = left.subplots(1, 5)
z = figures.largest_slice(targets[0, ..., 0], targets[0, ..., 0])
draw(panels[0], images[0, :, :, z, FLAIR], "FLAIR and whole tumour")
panels[0].contour(targets[0, :, :, z, 0].T, levels=[0.5], colors="#E69F00", linewidths=1)
gates = keras.Model(
    trained.input, [trained.get_layer(f"Gate{stage}_sigmoid").output for stage in BELOW]
)
for stage, (panel, gate) in enumerate(zip(panels[1:], gates(images[:1])), 1):
    gate = gate.numpy()[0, :, :, z * gate.shape[3] // 32, 0]
    title = f"gate {stage}, {len(gate)}$^3$:\n{gate.min():.2f} to {gate.max():.2f}"
    draw(panel, gate, title, cmap="viridis")
bars = right.subplots()
for number, (region, line) in enumerate(by_cut.iterrows()):
    places = np.arange(len(cuts)) + 0.26 * (number - 1)
    bars.bar(places, line, 0.24, color=figures.REGION_COLOURS[region], label=region)
bars.set_xticks(np.arange(len(cuts)), [name.replace("into ", "into\n") for name in cuts])
bars.set(ylabel="soft Dice", ylim=(0, 1), xlabel="cut off")
bars.legend(frameon=False, ncols=3)
bars.spines[["top", "right"]].set_visible(False)

# %%
by_cut

# %% [markdown]
# In this run the answer is plain. What lies below stages 1 and 2, bottleneck included, can be cut
# off and not a digit of the table changes; below stage 3 hardly one does. Only the last gate, the
# way from the stage before into the last one, is made use of, and without it the network still
# finds tumour: from the encoder's first level, whose maps see a few voxels around each. A minute of
# training on synthetic patients proves nothing about 70 epochs on BraTS, but the question can be
# asked of any trained network of this kind.
#
# ## 6. Whole volumes
#
# The authors' code never predicts a whole volume. Windows of the crop's size that overlap by half
# do, averaged with a weight that trusts the middle of a window more than its rim. Along one axis:

# %%
case = data.store.cases[data.held_out[0]]
volume = volumes.read_volume(case, short.data.normalisation)
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
panel.set(xlabel="x (voxels of the box)", ylabel="share in the average", ylim=(0, 1.05))
panel.legend(frameon=False)
panel.spines[["top", "right"]].set_visible(False)

# %%
main = steps.load_network(run_folder, "fmnet", REGIONS)
predicted = sliding_window.predict_volume(main, volume, patch=patch, overlap=overlap)
in_threes = sliding_window.predict_volume(main, volume, patch=patch, overlap=overlap, batch_size=3)
change = np.abs(predicted - in_threes).max()
print(f"three windows at once instead of one: largest change {change:.1e}")
scores = steps.score_variant("fmnet", short, data, run_folder)


# %% [markdown]
# The median patient by the Dice of all regions: probabilities of the whole tumour by the one window
# that holds most of it, by all windows together, and the label map that is written as NIfTI, on the
# full grid, with the codes and the affine of the case's own files.

# %%
chosen = figures.pick_cases(scores, "fmnet")["median"]
case = data.store.cases[chosen]
volume = volumes.read_volume(case, short.data.normalisation)
inside = tuple(slice(f, f + n) for f, n in zip(case.origin, volume.shape))
truth = case.full_labels()[inside]
path = steps.prediction(run_folder, short, "fmnet", chosen)
found = brats.Brats().read_labels(path, case)[inside]
starts = sliding_window.window_starts(volume.shape[:3], patch, overlap)
windows = [tuple(slice(f, f + n) for f, n in zip(start, patch)) for start in starts]
window = max(windows, key=lambda window: np.count_nonzero(truth[window]))
alone = np.full(volume.shape[:3], np.nan)
alone[window] = main.predict_on_batch(volume[window][None])[0, ..., 0]
together = sliding_window.predict_volume(main, volume, patch=patch, overlap=overlap)[..., 0]
z = figures.largest_slice(truth[window], truth[window]) + window[2].start


def paint(panel, labels):
    for code, colour in figures.LABEL_COLOURS.items():
        mask = (labels == code).T
        colours = plt.matplotlib.colors.ListedColormap([colour])
        panel.imshow(np.ma.masked_where(~mask, mask), cmap=colours)
        panel.plot([], [], "s", color=colour, label=figures.LABEL_NAMES[code])


figure, panels = plt.subplots(1, 5, figsize=(13, 3.4), layout="compressed")
flair = volume[:, :, z, FLAIR]
draw(panels[0], flair, f"{chosen}\nFLAIR, slice {z}", vmax=3)
draw(panels[1], flair, "annotation", vmax=3)
paint(panels[1], truth[:, :, z])
draw(panels[2], alone[:, :, z], "whole tumour, one window", vmin=0, vmax=1)
draw(panels[3], together[:, :, z], f"whole tumour, {len(windows)} windows", vmin=0, vmax=1)
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
# **The authors'.** Their test cases go through the training pipeline: random crops, on a tumour
# more often than chance, augmented. The probabilities are not thresholded, and a whole batch counts
# as one image. That is Table II.
#
# **The field's.** Whole cases, probabilities above 1/2, every case counts once: Dice and the 95th
# percentile of the surface distances by the challenge's rule. That is what other papers have.

# %%
crops = paper_figures.crop_scores(run_folder, data, variants)
published = report.read_published("experiments/fmnet2023/published.csv")
table_two = published[published["table"] == "Table II"].set_index(["metric", "region"])["value"]
rows = {}
for region in REGIONS:
    of_region = scores[scores["region"] == region]["dice"]
    of_crops = crops[crops["region"] == region]["crop_dice"].iloc[0]
    rows[f"Dice {region}"] = {
        "Table II": table_two["crop_dice", region],
        "the authors' score, here": of_crops,
        "the field's, here": of_region.mean(),
    }
rows["loss"] = {
    "Table II": table_two["loss", ""],
    "the authors' score, here": crops["loss"].dropna().iloc[0],
}
pd.DataFrame(rows).T.map(lambda value: "" if np.isnan(value) else f"{value:.3f}")

# %% [markdown]
# Only the middle column may stand beside Table II, and only after the recipe has run on BraTS 2021:
# these are synthetic patients and a minute of training. The right column is another quantity. The
# paper does not have it, so no number of Table II can be put beside other papers'.
#
# Every held-out patient's whole tumour, as the report has it:

# %% tags=["scores"]
columns_of_table = ["dice", "sensitivity", "specificity", "hd95_mm"]
whole = scores[scores["region"] == "WT"].set_index("case")
whole[columns_of_table].map("{:.3f}".format)

# %% [markdown]
# ## 8. The paper's experiments
#
# A variant is a list of overrides of the recipe, nothing else. In two dimensions one of them puts
# other data in the place of the recipe's: slices, or slices of a single modality.

# %%
answers = {}
for spec in EXPERIMENT.tables:
    for row in spec.rows:
        label = ", ".join(filter(None, (row.label, row.variant)))
        answers.setdefault(row.measured, []).append(f"{spec.id}: {label}")
every_variant = EXPERIMENT.profiles["paper"].variants


def beyond(name):
    """A variant's overrides, those of another one that it begins with by name."""
    changes = every_variant[name]
    others = {k: v for k, v in every_variant.items() if v and v != changes}
    starts = [k for k, v in others.items() if changes[: len(v)] == v]
    first = max(starts, key=lambda other: len(others[other]), default=None)
    shown = [f"those of {first.replace('_', ' ')}"] if first else []
    rest = changes[len(others[first]) if first else 0 :]
    return shown + [f"`{change}`" for change in rest]


lines = ["| variant | overrides | rows |", "|:--|:--|:--|"]
for name in every_variant:
    overrides, rows = "<br>".join(beyond(name)) or "none", "<br>".join(answers.get(name, []))
    lines.append(f"| {name.replace('_', ' ')} | {overrides} | {rows} |")
Markdown("\n".join(lines))

# %% [markdown]
# Table I, the seconds per epoch with half precision and with the augmentation on the accelerator,
# is measured by `python benchmarks/fmnet_loading.py`. Why the numbers above are not the paper's
# experiment, in the words of every report:

# %%
finished = report.Run(
    folder=run_folder,
    recipe=short,
    provenance={
        "data_name": data.name,
        "training_cases": len(data.training),
        "profile": "notebook",
    },
    scores=scores,
    logs={"fmnet-WT+TC+ET": log},
)
reasons = report.why_not_comparable(finished, EXPERIMENT.paper)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %%
temporary.cleanup()

# %% [markdown]
# ## 9. With real data
#
# BraTS is given out by the challenge's organisers after registration. Point the experiment at the
# folder, whatever lies between it and the cases:
#
# ```
# keras-medseg check /path/to/BraTS2021       every problem of every case
# make reproduce-fmnet2023 DATA=/path/to/BraTS2021
# ```
#
# That is the authors' recipe with all its ablations, for which one wants a GPU. It goes on where it
# was interrupted and ends with `report.html`. `python -m experiments fmnet2023 --compare` trains
# NVIDIA's optimized U-Net instead, the paper's benchmark.
#
# Where to go from here: train what the text says (`SET="model.overrides.variant=paper"`) and ask
# section 5's question again; see less (`SET="data.modalities=('t1ce',)"`); or use the parts in your
# own code: `keras_medseg.build("fmnet", input_shape=(None, None, None, 4), supervision_heads=0)` is
# a Keras model for volumes of any size that 16 divides.
