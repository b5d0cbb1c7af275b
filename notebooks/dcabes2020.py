# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A residual-attention U-Net with an edge loss
#
# Brain tumours in MRI, segmented slice by slice, after a paper of DCABES 2020
# ([doi 10.1109/DCABES50732.2020.00048](https://doi.org/10.1109/DCABES50732.2020.00048)). The
# paper adds three things to the U-Net: residual blocks with few parameters, an attention module
# (CBAM) on every skip connection, and a loss that looks at edges.
#
# This notebook walks through them in that order, then through the data, and ends with a training
# that is short enough to watch. Everything it calls is the public interface of `keras_medseg`;
# nothing is written again here. It needs no data and no network: the patients are synthetic.
#
# What the paper leaves open, and how it was settled, stands in
# `experiments/dcabes2020/ledger.toml`, one entry per statement of the paper.

# %%
import inspect
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
import tensorflow as tf
from IPython.display import Image, Markdown
from scipy import ndimage

import keras_medseg
from experiments.dcabes2020 import figures as paper_figures
from experiments.dcabes2020.recipe import EXPERIMENT, RECIPE
from keras_medseg import losses, recipe
from keras_medseg.data.datasets import brats
from keras_medseg.data.transforms import volumes
from keras_medseg.evaluation import statistics
from keras_medseg.layers import attention, residual
from keras_medseg.phantoms import brain
from keras_medseg.phantoms import brats as phantom
from keras_medseg.reporting import figures, report
from keras_medseg.runs import steps

plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.2f}".format
pd.options.display.width = 100
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)


# %% [markdown]
# ## 1. The network
#
# Table I of the paper lists eleven stages: a convolution, four residual blocks on the way down,
# one at the bottom, three on the way up, a convolution and the output. Below is that table as the
# built network has it, read from its layers, with the paper's output column beside it.

# %%
network = keras_medseg.build("residual_attention_unet")

TABLE_ONE = {
    "Conv1": "176*176*32",
    "ResBlock1": "88*88*32",
    "ResBlock2": "44*44*64",
    "ResBlock3": "22*22*128",
    "ResBlock4": "11*11*256",
    "ResBlock5": "11*11*256",
    "ResBlock6": "22*22*256",
    "ResBlock7": "44*44*64",
    "ResBlock8": "88*88*64",
    "Conv2": "176*176*32",
    "Output": "176*176*1",
}


def size(tensor):
    return "*".join(map(str, tensor.shape[1:]))


rows = []
for stage, printed in TABLE_ONE.items():
    layers = [layer for layer in network.layers if layer.name.startswith(stage)]
    rows.append(
        {
            "stage": stage,
            "input": size(layers[0].input),
            "output": size(layers[-1].output),
            "output in the paper": printed,
            "": "" if size(layers[-1].output) == printed else "differs",
            "parameters": f"{sum(layer.count_params() for layer in layers):,}",
        }
    )
pd.DataFrame(rows).set_index("stage")

# %% [markdown]
# One row differs. The paper prints 44\*44\*64 for ResBlock7, but in the same row a filter count of
# 128, and for the next block an input of 160 channels. After up-sampling, ResBlock8 is joined by
# the 32 channels of ResBlock1's skip, so ResBlock7 must give 160 - 32 = 128. The printed 64 is a
# slip.
#
# The input columns of ResBlock6, 7, 8 and Conv2 show where the skips join: 384 = 256 + 128,
# 320 = 256 + 64, 160 = 128 + 32, 96 = 64 + 32.
#
# ### Which residual block?
#
# The paper does not draw its block. It says that it is "based on the deep residual network
# proposed by He et al.", that "by improving the residual convolution block, the amount of
# parameters was greatly reduced", and that the total "is about 570,000". Table I fixes everything
# around the block, so the total tells which block it can be.

# %%
READINGS = {
    "separable": "one depthwise-separable 3x3, 1x1 on every shortcut",
    "separable_pair": "two of them, shortcut without parameters",
    "bottleneck": "1x1, 3x3, 1x1 at a quarter width, 1x1 on every shortcut",
    "plain_single": "one 3x3, 1x1 on the shortcut where channels change",
    "plain": "two 3x3, the same shortcut",
}


def count(**options):
    return keras_medseg.build("residual_attention_unet", **options).count_params()


counts = {block: count(residual_block=block) for block in READINGS}
table = pd.DataFrame({"reading": READINGS, "parameters": counts})
table["off 570,000"] = table["parameters"].map(lambda n: f"{n / 570_000 - 1:+.2%}")
table.assign(parameters=table["parameters"].map("{:,}".format))

# %% [markdown]
# Plain blocks are out by a factor of four and more. Three readings lie within 2 %, and only the
# separable one rounds to 570,000, so it is the default; `residual_block="bottleneck"` builds the
# strongest rival. The count decides two more things that the paper leaves open: neither halving
# nor doubling the resolution can have parameters of its own.

# %%
variants = {
    "default: max pooling, nearest neighbour": {},
    "strided convolutions on the way down": {"downsampling": "strided_conv"},
    "transposed convolutions on the way up": {"upsampling": "transposed_conv"},
    "without CBAM": {"attention": False},
}
table = pd.DataFrame({"parameters": {name: count(**o) for name, o in variants.items()}})
table.map("{:,}".format)


# %% [markdown]
# The chosen block, as it is built. (`conv1` is followed by batch normalisation, and the last ReLU
# comes after the sum, as in He et al.)


# %%
def source(*functions):
    text = "\n\n".join(inspect.getsource(function) for function in functions)
    return Markdown(f"```python\n{text}```")


source(residual.separable)

# %% [markdown]
# ## 2. CBAM on the skips
#
# The *convolutional block attention module* (Woo et al. 2018) weights a feature map $F$ twice,
# first by channel, then by pixel (the paper's equations 1 to 4):
#
# $$F' = M_c(F) \otimes F, \qquad F'' = M_s(F') \otimes F'$$
#
# $$M_c(F) = \sigma\big(\mathrm{MLP}(\mathrm{AvgPool}\,F) + \mathrm{MLP}(\mathrm{MaxPool}\,F)\big)$$
#
# $$M_s(F) = \sigma\big(f^{7\times7}([\mathrm{AvgPool}\,F;\ \mathrm{MaxPool}\,F])\big)$$
#
# Here it sits on the four skip connections: what the encoder hands over is weighted before the
# decoder sees it. The two-layer MLP is shared by both pooled vectors and narrows to a sixteenth of
# the channels; the spatial gate is a single 7x7 convolution over two maps.

# %%
source(attention.channel_gate, attention.spatial_gate)

# %% [markdown]
# What that costs, by hand: with $C$ channels and $h = C / 16$, the MLP has $2Ch$ weights and
# $h + C$ biases, the spatial gate $7 \cdot 7 \cdot 2 = 98$ weights. All four together stay under
# 1 % of the network.

# %%
rows = []
for number in (9, 8, 7, 6):
    gates = [layer for layer in network.layers if layer.name.startswith(f"CBAM{number}_")]
    channels = gates[-1].output.shape[-1]
    hidden = channels // 16
    rows.append(
        {
            "skip joins": {9: "Conv2"}.get(number, f"ResBlock{number}"),
            "map": size(gates[-1].output),
            "parameters": sum(layer.count_params() for layer in gates),
            "by hand": 2 * channels * hidden + hidden + channels + 98,
        }
    )
print(f"together {sum(row['parameters'] for row in rows):,} of {network.count_params():,}")
pd.DataFrame(rows).set_index("skip joins")

# %% [markdown]
# What the gates do after a training is shown in section 5.
#
# ## 3. The edge loss
#
# Cross entropy treats every pixel alike, and the pixels at a tumour's border are few. The paper
# therefore smooths prediction and label with a Gaussian, takes Sobel responses of both, and adds
# their mean squared difference to the cross entropy (equation 12):
#
# $$L = L_\mathrm{PPCE} + \lambda\, L_\mathrm{edge}$$
#
# The filters are fixed, nothing in them is learned. The paper gives neither $\lambda$ nor the
# Gaussian nor whether the two responses are compared or their magnitude; here $\lambda = 1$, 5x5
# pixels with $\sigma = 1$, and the two responses. To look at it, we take the slice with the
# largest tumour of a synthetic patient (section 4 shows the whole picture).

# %%
patient = brain.brats_case(seed=0, index=1)
whole = np.isin(patient.labels, brats.REGIONS["WT"])
z = figures.largest_slice(patient.labels, patient.labels)
x_window, y_window, z_window = volumes.window(whole.shape, RECIPE.data.window)
label = whole[x_window, y_window, z].astype("float32")

options = {"gaussian_size": 5, "gaussian_sigma": 1.0}
responses = np.asarray(losses.edge_maps(label[None, :, :, None], **options))[0, :, :, 0]
magnitude = losses.edge_maps(label[None, :, :, None], response="magnitude", **options)
blurred = ndimage.convolve(label, losses.gaussian_kernel(5, 1.0), mode="constant")

rows, columns = (slice(max(edge.min() - 12, 0), edge.max() + 13) for edge in np.nonzero(label))


def draw(panel, picture, title, **style):
    """Anterior on top, the patient's right on the left."""
    drawn = panel.imshow(picture[rows, columns].T, **style)
    panel.set(title=title, xticks=[], yticks=[])
    return drawn


figure, panels = plt.subplots(1, 5, figsize=(12, 2.9), layout="compressed")
draw(panels[0], label, "label", cmap="gray")
draw(panels[1], blurred, "after the Gaussian", cmap="gray")
draw(panels[2], responses[..., 0], "Sobel along x", cmap="RdBu_r", vmin=-4, vmax=4)
drawn = draw(panels[3], responses[..., 1], "Sobel along y", cmap="RdBu_r", vmin=-4, vmax=4)
figure.colorbar(drawn, ax=panels[3], shrink=0.8)
_ = draw(panels[4], np.asarray(magnitude)[0, :, :, 0, 0], "magnitude", cmap="magma")
# %% [markdown]
# The responses along x and y keep the sign of an edge: whether one enters or leaves the tumour.
# The magnitude forgets it, which is why the two responses are the default.
#
# ### What it adds to the gradient
#
# A loss acts through its gradient. We take three predictions of this slice: one that knows nothing
# (0.5 everywhere), one that misses the tumour (0.02 everywhere), and one of the right shape that
# lies two pixels too far to the patient's left. For each we ask how either loss pushes each pixel's
# logit: minus its gradient, so that red means "raise the probability here".

# %%
shifted = ndimage.gaussian_filter(np.roll(label, 2, axis=0), 1).clip(0.02, 0.98)
PREDICTIONS = {
    "knows nothing": np.full_like(label, 0.5),
    "misses the tumour": np.full_like(label, 0.02),
    "two pixels off": shifted,
}


def push(loss, probabilities):
    """(x, y) minus the gradient of the mean loss with respect to the logits, per 1e-6."""
    logits = tf.constant(np.log(probabilities / (1 - probabilities))[None, :, :, None])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_mean(loss(label[None, :, :, None], tf.sigmoid(logits)))
    return -tape.gradient(value, logits).numpy()[0, :, :, 0] * 1e6


pushes = {
    name: (push(losses.cross_entropy, p), push(losses.edge_loss, p))
    for name, p in PREDICTIONS.items()
}

figure, grid = plt.subplots(3, 4, figsize=(9, 7.2), layout="compressed")
for line, (name, (entropy, edge)) in zip(grid, pushes.items()):
    draw(line[0], PREDICTIONS[name], name, cmap="gray", vmin=0, vmax=1)
    limit = max(np.abs(entropy).max(), np.abs(edge).max())
    for panel, picture, title in zip(
        line[1:], (entropy, edge, entropy + edge), ("cross entropy", "edge loss", "sum")
    ):
        drawn = draw(panel, picture, title, cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.contour(label[rows, columns].T, levels=[0.5], colors="black", linewidths=0.6)
    figure.colorbar(drawn, ax=line, shrink=0.8, label="push, 1e-6")

# %% [markdown]
# In numbers: how much of each push falls within three pixels of the annotated border, and how long
# the edge loss' gradient is beside that of the cross entropy.

# %%
inside, outside = label > 0, label == 0
border_distance = np.where(
    inside, ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(outside)
)
near = border_distance <= 3
rows_of_table = {
    name: {
        "cross entropy, near the border": f"{np.abs(e[near]).sum() / np.abs(e).sum():.0%}",
        "edge loss, near the border": f"{np.abs(g[near]).sum() / np.abs(g).sum():.0%}",
        "length of edge / cross entropy": f"{np.linalg.norm(g) / np.linalg.norm(e):.2f}",
    }
    for name, (e, g) in pushes.items()
}
print(f"pixels within three pixels of the border: {near.mean():.1%} of the window")
pd.DataFrame(rows_of_table).transpose()

# %% [markdown]
# The cross entropy pushes every wrong pixel, wherever it lies. The edge loss pushes those at a
# border, the annotated one as well as the predicted one, and is the stronger of the two once the
# shape is roughly right. Where the network is sure and wrong it hardly helps: a squared error's
# gradient passes through the sigmoid and shrinks with $p\,(1 - p)$, that of the cross entropy does
# not. So the edge loss refines borders, and stands beside the cross entropy, not in its place.
#
# Along one line through the tumour, for the prediction that is two pixels off:

# %%
entropy, edge = pushes["two pixels off"]
row = int(label.sum(axis=0).argmax())
figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
upper.plot(label[:, row], "k", drawstyle="steps-mid", label="label")
upper.plot(shifted[:, row], color="#0072B2", label="prediction")
upper.set_ylabel("probability")
lower.plot(entropy[:, row], color="#E69F00", label="cross entropy")
lower.plot(edge[:, row], color="#009E73", label="edge loss")
lower.plot((entropy + edge)[:, row], "k:", label="sum")
lower.axhline(0, color="#BBBBBB", lw=0.8, zorder=0)
lower.set(xlabel="x (pixels of the window)", ylabel="push, 1e-6", xlim=(rows.start, rows.stop))
for panel in (upper, lower):
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    panel.spines[["top", "right"]].set_visible(False)


# %% [markdown]
# ## 4. The data
#
# The paper uses BraTS 2017: 285 patients, each with four registered, skull-stripped volumes of
# 240x240x155 voxels of 1 mm, and a label map of edema, necrotic or non-enhancing core, and
# enhancing tumour. The scores speak of three nested regions: WT (all three), TC (without edema) and
# ET (enhancing alone).
#
# Real patients cannot be shipped with a notebook. The synthetic ones of `keras_medseg.phantoms`
# come in the same files with the same codes: contrasts of each modality, a bias field, noise,
# scanner-dependent scales, and bright distractors that are no tumour. This one is seen in the
# colours of the paper's Figure 3.

# %%
brain = patient.image.any(axis=-1)
rows, columns = (
    slice(max(edge.min() - 4, 0), edge.max() + 5) for edge in np.nonzero(brain[:, :, z])
)
figure, panels = plt.subplots(1, 5, figsize=(12, 3.3), layout="compressed")
for channel, name in enumerate(brats.MODALITIES):
    picture = patient.image[:, :, z, channel]
    brightest = np.percentile(picture[picture > 0], 99.5)
    draw(panels[channel], picture, figures.MODALITY_NAMES[name], cmap="gray", vmax=brightest)
flair = patient.image[:, :, z, 0]
draw(panels[4], flair, "labels", cmap="gray", vmax=np.percentile(flair[flair > 0], 99.5))
for code, colour in figures.LABEL_COLOURS.items():
    mask = (patient.labels[:, :, z] == code)[rows, columns].T
    panels[4].imshow(
        np.ma.masked_where(~mask, mask), cmap=plt.matplotlib.colors.ListedColormap([colour])
    )
    panels[4].plot([], [], "s", color=colour, label=figures.LABEL_NAMES[code])
_ = figure.legend(loc="outside lower center", ncols=3, frameon=False)
# %% [markdown]
# Numbers in MRI have no unit, and patients differ by a factor, so each modality of each patient is
# brought to zero mean and unit variance over its non-zero voxels; the background stays 0. ("Simple
# data preprocessing" is all that the paper says.) Below, 24 patients at 2 mm, written to disk in
# the files of BraTS 2017, found again, decoded once into a store, and split **by patient** into
# those to train on and those held out.

# %%
short = recipe.override(
    RECIPE,
    [
        "data.window=(96, 96, 64)",
        "data.slice_step=4",
        "model.networks=(('WT',),)",
        "model.overrides.filters=8",
        "train.batch_size=8",
        "train.epochs=8",
        "train.optimizer=adam",
    ],
)
phantom.write_brats(work / "phantom", cases=24, layout="BraTS2017", shape=(120, 120, 77))
data = steps.load_data(work / "phantom", work / "store", short)
print(f"{data.name}: {len(data.training)} to train on, {len(data.held_out)} held out")

means = pd.DataFrame(
    [[channel["mean"] for channel in case.statistics] for case in data.store.cases.values()],
    index=list(data.store.cases),
    columns=[figures.MODALITY_NAMES[name] for name in brats.MODALITIES],
)
means.agg(["min", "median", "max"]).rename("{} of the patients' means".format).astype(int)

# %% [markdown]
# ### The window, and what it loses
#
# "Because there are many useless pixels on the edge of the image, the middle 176\*176\*128 is taken
# as the input." Most of what is cut off is background, but not all.

# %%
cuts = {
    "axial": (patient.image[:, :, z, 0], x_window, y_window, "x", "y", "upper"),
    "coronal": (patient.image[:, 128, :, 0], x_window, z_window, "x", "z", "lower"),
    "sagittal": (patient.image[150, :, :, 0], y_window, z_window, "y", "z", "lower"),
}
proportions = {"width_ratios": [1, 1.55, 1.55]}
figure, panels = plt.subplots(1, 3, figsize=(11, 3.2), layout="compressed", gridspec_kw=proportions)
for panel, (name, (picture, across, up, a, b, origin)) in zip(panels, cuts.items()):
    panel.imshow(picture.T, cmap="gray", origin=origin, vmax=np.percentile(picture, 99.5))
    corner = (across.start - 0.5, up.start - 0.5)
    extent = (across.stop - across.start, up.stop - up.start)
    panel.add_patch(plt.Rectangle(corner, *extent, fill=False, ec="#E69F00", lw=1.5))
    panel.set(title=name, xlabel=f"{a} (voxels)", ylabel=f"{b} (voxels)")

# %% [markdown]
# Predictions are therefore pasted back into the full grid before they are scored, and tumour
# outside of the window counts as missed. The best Dice that a perfect network could reach is then
# $2 |T_\mathrm{in}| / (|T_\mathrm{in}| + |T|)$. For the 24 patients, with the paper's window in
# voxels of 2 mm (88x88x64):

# %%
rows_of_table = {}
for name, case in data.store.cases.items():
    window = volumes.window(case.full_shape, (88, 88, 64))
    labels = case.full_labels()
    masks = {"brain": case.full_image().any(axis=-1), "tumour": labels > 0}
    share = {what: mask[window].sum() / mask.sum() for what, mask in masks.items()}
    rows_of_table[name] = {f"{what} outside, %": 100 * (1 - s) for what, s in share.items()}
    rows_of_table[name]["best Dice, %"] = 200 * share["tumour"] / (share["tumour"] + 1)
lost = pd.DataFrame(rows_of_table).T
lost.agg(["min", "median", "max"])

# %% [markdown]
# Here the window costs every patient some brain and nobody any tumour. Nothing guarantees that for
# real patients; where it does, the scores will say so.

# %% [markdown]
# ## 5. A short training
#
# The paper trains three networks (WT, TC, ET) for 20 epochs on some 242 patients; Table III
# compares that with the same training without the edge loss. Here is the whole-tumour network, in
# both variants, small enough for two CPU cores and a minute. A recipe is plain data, so the
# difference to the paper's can be listed:

# %%
changed = recipe.differences(short, RECIPE)
pd.DataFrame(changed, index=["here", "paper"]).T[["paper", "here"]]

# %% [markdown]
# Adam takes the place of plain gradient descent, because 0.005 without momentum has hardly left its
# start after so few steps; the window of 96x96 pixels of 2 mm is the next size that four halvings
# divide. Every number that follows belongs to *this* recipe and to synthetic patients.

# %%
run_folder = work / "run"
variants = {
    name: recipe.override(short, changes)
    for name, changes in EXPERIMENT.profiles["paper"].variants.items()
}
steps.claim(run_folder, short, data, variants)
for name, variant in variants.items():
    steps.train_variant(name, variant, data, run_folder)

# %%
logs = {
    f"{name}-WT": pd.read_csv(steps.training_folder(run_folder, name, ("WT",)) / "log.csv")
    for name in variants
}
figures.learning_curves(logs)

# %% [markdown]
# How to read these curves. The two losses are not comparable: one has an edge term more. A point of
# the training curve is the mean over an epoch in which the network got better, the validation is
# measured at its end, so the first training point looks bad. Against that, the validation runs on
# averaged statistics of the batch normalisation, and with the momentum of 0.99 that Keras 2.2.4 has
# by default they still hold $0.99^{40} = 67\,\%$ of where they started after the first epoch of 40
# steps. Pixel accuracy, which steers the paper's learning rate, starts close to 1, for most pixels
# are background.
#
# ### What the gates look at
#
# The spatial gates of the four CBAMs on a held-out slice, each scaled to its own range: the first
# skip (left) has the full resolution, the last an eighth of it. A gate multiplies what the encoder
# hands over, so dark places are those that the decoder is to see less of. That is not the same as
# an explanation: a gate need not mark the tumour to be of use.

# %%
trained = steps.load_network(run_folder, "with_edge_loss", ("WT",))
held_out = steps.batches(short, data.store, data.held_out, ("WT",), training=False)
batches = [held_out.batch(0, step) for step in range(held_out.steps_per_epoch)]
images, labels = (np.concatenate(parts) for parts in zip(*batches))
chosen = int(labels.sum(axis=(1, 2, 3)).argmax())
names = [f"CBAM{number}_spatial_sigmoid" for number in (9, 8, 7, 6)]
probe = keras.Model(trained.input, [trained.get_layer(name).output for name in names])
maps = probe.predict_on_batch(images[chosen : chosen + 1])

rows = columns = slice(None)
figure, panels = plt.subplots(1, 5, figsize=(12, 2.9), layout="compressed")
draw(panels[0], images[chosen, :, :, 0], "FLAIR and label", cmap="gray")
panels[0].contour(labels[chosen, :, :, 0].T, levels=[0.5], colors="#E69F00", linewidths=1)
for panel, gate in zip(panels[1:], maps):
    low, high = gate.min(), gate.max()
    title = f"{size(gate)[:-2]}: {low:.2f} to {high:.2f}"
    draw(panel, gate[0, :, :, 0], title, cmap="viridis")

# %% [markdown]
# ## 6. The result
#
# Each held-out patient is predicted slice by slice, pasted into the full grid, written as NIfTI
# with the affine of the input, and scored there by the rules of BraTS.

# %% tags=["scores"]
scores = pd.concat(
    [steps.score_variant(name, variant, data, run_folder) for name, variant in variants.items()],
    ignore_index=True,
)
columns_of_table = ["dice", "sensitivity", "specificity", "hd95_mm"]
scores.set_index(["variant", "case"])[columns_of_table].map("{:.3f}".format)

# %% [markdown]
# The median patient. Only the whole tumour was trained, so the predicted label map knows one
# class, painted as edema.

# %%
picked = figures.pick_cases(scores, "with_edge_loss")
name = picked["median"]
case = data.store.cases[name]
path = steps.prediction(run_folder, short, "with_edge_loss", name)
dice = scores.query("variant == 'with_edge_loss' and case == @name").set_index("region")["dice"]
figures.case_overlay(
    case.full_image(),
    case.full_labels(),
    brats.Brats().read_labels(path, case),
    title=f"median case: {name}",
    dice=dict(dice),
    spacing_mm=case.spacing_mm,
    backgrounds=("flair",),
)

# %% [markdown]
# The same patient as the edge loss sees it: probabilities above, the response of the filters below,
# for both variants.

# %%
(picture,) = paper_figures.edge_figures(run_folder, data, short)
Image(picture.path.read_bytes(), width=800)

# %% [markdown]
# ### Beside the published tables
#
# The paper's rows and these, Dice in %. What was not run stays empty.

# %%
published = report.read_published("experiments/dcabes2020/published.csv")
tables = [report.build_table(table, published, scores) for table in EXPERIMENT.tables]
cells = pd.concat(tables)
key = ["table", "row", "variant"]
wide = cells.pivot(index=key, columns="region", values=["published", "measured"])
order = cells.drop_duplicates(key).set_index(key).index
columns_of_table = [
    (kind, region) for kind in ("published", "measured") for region in brats.REGIONS
]
wide.reindex(order)[columns_of_table].map(lambda dice: "" if pd.isna(dice) else f"{dice:.2f}")

# %% [markdown]
# These columns cannot be compared, and the report of every run says why, in these words:

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
    logs=logs,
)
reasons = report.why_not_comparable(finished, EXPERIMENT.paper)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %% [markdown]
# Nor can the two variants be told apart by so few patients, whichever is ahead:

# %%
compared = statistics.compare(scores, "without_edge_loss", "with_edge_loss")
compared[["region", "n", "baseline", "variant", "difference", "p", "note"]].set_index("region")

# %%
temporary.cleanup()

# %% [markdown]
# ## 7. With real data
#
# BraTS 2017 is given out by the challenge's organisers after registration; later years hold the
# same patients and more, and are read too. Point the experiment at the folder, whatever lies
# between it and the cases:
#
# ```
# keras-medseg check /path/to/MICCAI_BraTS17          every problem of every case, in one go
# make reproduce-dcabes2020 DATA=/path/to/MICCAI_BraTS17
# ```
#
# That is the paper's recipe: six trainings of 20 epochs, for which one wants a GPU. It goes on
# where it was interrupted, and ends with `report.html`: both tables, intervals over patients, a
# paired test, curves and overlays. `PROFILE=quick` shortens it, `SET="train.epochs=2"` changes any
# field of the recipe.
#
# Where to go from here: try another reading of the paper (`SET="model.overrides.residual_block=
# bottleneck"`, `SET="train.loss_options.response=magnitude"`), or use the parts in your own code:
# `keras_medseg.build("residual_attention_unet", input_shape=(None, None, 4))` is a Keras model, and
# `keras_medseg.losses.get("cross_entropy_and_edge", edge_weight=0.5)` a Keras loss.
