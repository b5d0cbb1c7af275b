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
# Brain tumors in MRI, segmented slice by slice, after a paper of DCABES 2020
# ([doi 10.1109/DCABES50732.2020.00048](https://doi.org/10.1109/DCABES50732.2020.00048)). The
# paper adds three things to the U-Net: residual blocks with few parameters, an attention module
# (CBAM) on every skip connection, and a loss that compares edges.
#
# This notebook shows the three in that order, then the data, and ends with a short training. It
# calls the public interface of `keras_medseg` and trains in the same way as the command line does.
# It needs neither data nor an internet connection: the patients are synthetic.
#
# The paper leaves some points open. `experiments/dcabes2020/ledger.toml` lists how each of them was
# decided, with one entry per statement of the paper.

# %%
import contextlib
import inspect
import io
import itertools
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
import tensorflow as tf
from IPython.display import Image, Markdown
from scipy import ndimage

import keras_medseg
from experiments.dcabes2020.figures import parts
from experiments.dcabes2020.recipe import EXPERIMENTS, RECIPE
from keras_medseg import losses, recipe
from keras_medseg.data.datasets import brats
from keras_medseg.data.transforms import volumes
from keras_medseg.evaluation import statistics
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.layers import attention, residual
from keras_medseg.phantoms import brain
from keras_medseg.reporting import tables
from keras_medseg.reporting.figures import charts, style
from keras_medseg.reporting.figures import volumes as figures
from keras_medseg.reporting.report import RunData, why_not_comparable
from keras_medseg.runs import experiment, steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks import task_of

logging.getLogger("tensorflow").setLevel("ERROR")
plt.rcParams.update({"figure.dpi": 66, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.2f}".format
pd.options.display.width = 100
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)
PAPER = EXPERIMENTS["BraTS2017"]


# %% [markdown]
# ## 1. The network
#
# Table I of the paper lists eleven stages: a convolution, four residual blocks on the way down,
# one at the bottom, three on the way up, a convolution and the output. The table below is read from
# the layers of the built network; the paper's output column stands beside it.

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
# One row differs. The paper prints 44\*44\*64 for ResBlock7. But the same row has a filter count of
# 128, and the next block has an input of 160 channels. The input of ResBlock8 is the up-sampled
# output of ResBlock7, concatenated with the 32 channels of ResBlock1's skip. So ResBlock7 must have
# 160 - 32 = 128 channels, and the printed 64 is a misprint.
#
# The input columns of ResBlock6, 7, 8 and Conv2 show where the skips join: 384 = 256 + 128,
# 320 = 256 + 64, 160 = 128 + 32, 96 = 64 + 32.
#
# ### Which residual block?
#
# The paper does not draw its block. It says that it is "based on the deep residual network
# proposed by He et al.", that "by improving the residual convolution block, the amount of
# parameters was greatly reduced", and that the total "is about 570,000". Table I gives everything
# around the block, so the total number of parameters can be compared with each possible block, with
# or without batch normalization on its shortcut, with or without biases, and for three ratios of
# CBAM.

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


def off(parameters):
    return f"{parameters / 570_000 - 1:+.2%}"


counts = {block: count(residual_block=block) for block in READINGS}
table = pd.DataFrame({"reading": READINGS, "parameters": counts})
table["off 570,000"] = table["parameters"].map(off)
table.assign(parameters=table["parameters"].map("{:,}".format))

# %%
rows = []
for block, norm, bias, ratio in itertools.product(counts, (False, True), (True, False), (16, 8, 4)):
    if "plain" in block or (norm and block == "separable_pair"):
        continue  # four times too many; no convolution on the shortcut
    options = {"shortcut_norm": norm, "block_bias": bias, "cbam_ratio": ratio}
    rows.append({"block": block, **options, "parameters": count(residual_block=block, **options)})
readings = pd.DataFrame(rows)
near = (readings["parameters"] / 570_000 - 1).abs() <= 0.02
rounded = readings["parameters"].round(-4) == 570_000
print(f"{len(readings)} readings: {near.sum()} within 2 %, {rounded.sum()} round to 570,000")
readings["off 570,000"] = readings["parameters"].map(off)
readings.assign(parameters=readings["parameters"].map("{:,}".format))

# %% [markdown]
# Networks of plain blocks have more than four times as many parameters, so they are excluded. The
# count is compatible with nearly all of the others, among them He's own bottleneck with a norm on
# its shortcut, and so it does not decide which block the paper has. The default is the separable
# block, which lies nearest without a further choice; `residual_block="bottleneck"` with
# `shortcut_norm=True` builds the most plausible alternative. The paper speaks of the parameters
# "for the entire training process": if these were three networks, one for each region, no reading
# would fit.
#
# The total does decide two more points that the paper leaves open: neither down-sampling nor
# up-sampling can have parameters.

# %%
variants = {
    "default: max pooling, nearest neighbor": {},
    "strided convolutions on the way down": {"downsampling": "strided_conv"},
    "transposed convolutions on the way up": {"upsampling": "transposed_conv"},
    "without CBAM": {"attention": False},
}
table = pd.DataFrame({"parameters": {name: count(**o) for name, o in variants.items()}})
table.map("{:,}".format)


# %% [markdown]
# This is the code of the chosen block. (Batch normalization follows `conv1`, and the last ReLU
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
# Here it sits on the four skip connections: the encoder's features are weighted before the decoder
# gets them. The two-layer MLP is shared by both pooled vectors, and its hidden layer has a
# sixteenth of the channels. The spatial gate is a single 7x7 convolution over two maps.

# %%
source(attention.channel_gate, attention.spatial_gate)

# %% [markdown]
# How many parameters is that? With $C$ channels and $h = C / 16$, the MLP has $2Ch$ weights and
# $h + C$ biases, and the spatial gate has $7 \cdot 7 \cdot 2 = 98$ weights. All four modules
# together have less than 1 % of the network's parameters.

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
# Section 5 shows what the gates do after training.
#
# ## 3. The edge loss
#
# Cross entropy treats all pixels alike, and only few pixels lie at a tumor's border. The paper
# therefore smooths prediction and label with a Gaussian filter, applies Sobel filters to both, and
# adds the mean squared difference of the responses to the cross entropy (equation 12):
#
# $$L = L_\mathrm{PPCE} + \lambda\, L_\mathrm{edge}$$
#
# The filters are fixed; nothing in them is learned. (The paper's equations speak of an edge network
# that learns and is frozen then; `cross_entropy_and_learned_edge` is this other reading.) The paper
# gives neither $\lambda$ nor the size of the Gaussian nor the scale of the Sobel operator, and it
# does not say whether the two responses (along x and along y) are compared or their magnitude.
# Here, $\lambda = 1$, the Gaussian has 5x5 pixels with $\sigma = 1$, Sobel's kernels are not
# divided by 8, and the two responses are compared. The example below is the slice of a synthetic
# patient with the largest tumor area (section 4 shows the whole slice).

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


def draw(panel, image, title, **options):
    """Anterior on top, the patient's right on the left."""
    drawn = panel.imshow(image[rows, columns].T, **options)
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
# The responses along x and y have a sign: it tells on which side of an edge the tumor lies. The
# magnitude has no sign, which is why the two responses are the default.
#
# ### What the edge loss adds to the gradient
#
# A loss acts on the network through its gradient. Here are three predictions of this slice: 0.5
# everywhere ("knows nothing"), 0.02 everywhere ("misses the tumor"), and the right shape, two
# pixels too far to the patient's left ("two pixels off"). For each prediction and each loss, the
# figure shows the negative gradient with respect to the logit of each pixel. Gradient descent
# raises the probability of red pixels and lowers that of blue ones.

# %%
shifted = ndimage.gaussian_filter(np.roll(label, 2, axis=0), 1).clip(0.02, 0.98)
PREDICTIONS = {
    "knows nothing": np.full_like(label, 0.5),
    "misses the tumor": np.full_like(label, 0.02),
    "two pixels off": shifted,
}


def descent(loss, probabilities):
    """(x, y) minus the gradient of the mean loss with respect to the logits, per 1e-6."""
    logits = tf.constant(np.log(probabilities / (1 - probabilities))[None, :, :, None])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_mean(loss(label[None, :, :, None], tf.sigmoid(logits)))
    return -tape.gradient(value, logits).numpy()[0, :, :, 0] * 1e6


descents = {
    name: (descent(losses.cross_entropy, p), descent(losses.edge_loss, p))
    for name, p in PREDICTIONS.items()
}

figure, grid = plt.subplots(3, 4, figsize=(9, 7.2), layout="compressed")
for line, (name, (entropy, edge)) in zip(grid, descents.items()):
    draw(line[0], PREDICTIONS[name], name, cmap="gray", vmin=0, vmax=1)
    limit = max(np.abs(entropy).max(), np.abs(edge).max())
    for panel, image, title in zip(
        line[1:], (entropy, edge, entropy + edge), ("cross entropy", "edge loss", "sum")
    ):
        drawn = draw(panel, image, title, cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.contour(label[rows, columns].T, levels=[0.5], colors="black", linewidths=0.6)
    figure.colorbar(drawn, ax=line, shrink=0.8, label="negative gradient, 1e-6")

# %% [markdown]
# The table gives, for each loss, the share of the absolute gradient that falls within three pixels
# of the annotated border, and the norm of the edge loss's gradient divided by that of the cross
# entropy.

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
        "norm of edge / cross entropy": f"{np.linalg.norm(g) / np.linalg.norm(e):.2f}",
    }
    for name, (e, g) in descents.items()
}
print(f"pixels within three pixels of the border: {near.mean():.1%} of the window")
pd.DataFrame(rows_of_table).transpose()

# %% [markdown]
# The gradient of the cross entropy is large at every wrong pixel, wherever it lies. That of the
# edge loss is large at borders, the annotated one as well as the predicted one, and it is the
# larger of the two once the shape is roughly right. Where the network is confident and wrong, the
# edge loss hardly helps: the gradient of a squared error contains the factor $p\,(1 - p)$ of the
# sigmoid, which is then small; in the gradient of the cross entropy this factor cancels. So the
# edge loss can refine borders, but it cannot replace the cross entropy.
#
# The same along one line through the tumor, for the prediction that is two pixels off:

# %%
entropy, edge = descents["two pixels off"]
row = int(label.sum(axis=0).argmax())
figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
upper.plot(label[:, row], "k", drawstyle="steps-mid", label="label")
upper.plot(shifted[:, row], color="#0072B2", label="prediction")
upper.set_ylabel("probability")
lower.plot(entropy[:, row], color="#E69F00", label="cross entropy")
lower.plot(edge[:, row], color="#009E73", label="edge loss")
lower.plot((entropy + edge)[:, row], "k:", label="sum")
lower.axhline(0, color="#BBBBBB", lw=0.8, zorder=0)
lower.set(
    xlabel="x (pixels of the window)",
    ylabel="negative gradient, 1e-6",
    xlim=(rows.start, rows.stop),
)
for panel in (upper, lower):
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    panel.spines[["top", "right"]].set_visible(False)


# %% [markdown]
# ## 4. The data
#
# The paper uses BraTS 2017: 285 patients, each with four registered, skull-stripped volumes of
# 240x240x155 voxels of 1 mm, and a label map of edema, necrotic or non-enhancing core, and
# enhancing tumor. Three nested regions are scored: the whole tumor WT (all three labels), the tumor
# core TC (without edema), and the enhancing tumor ET.
#
# Images of real patients cannot be shipped with a notebook. The synthetic patients of
# `keras_medseg.phantoms` come in the same files with the same label codes. They have the contrasts
# of each modality, a bias field, noise, intensity scales that depend on the scanner, and bright
# structures that are no tumor. The figure shows one of them, with labels in the colors of the
# paper's Figure 3.

# %%
dataset = brats.Brats()
in_brain = patient.image.any(axis=-1)
rows, columns = (
    slice(max(edge.min() - 4, 0), edge.max() + 5) for edge in np.nonzero(in_brain[:, :, z])
)
figure, panels = plt.subplots(1, 5, figsize=(12, 3.3), layout="compressed")
for channel, name in enumerate(dataset.channels):
    image = patient.image[:, :, z, channel]
    brightest = np.percentile(image[image > 0], 99.5)
    draw(panels[channel], image, style.channel_title(name), cmap="gray", vmax=brightest)
flair = patient.image[:, :, z, 0]
draw(panels[4], flair, "labels", cmap="gray", vmax=np.percentile(flair[flair > 0], 99.5))
colors = style.label_colors(dataset.labels)
for code, name in dataset.labels.items():
    mask = (patient.labels[:, :, z] == code)[rows, columns].T
    painted = plt.matplotlib.colors.ListedColormap([colors[code]])
    panels[4].imshow(np.ma.masked_where(~mask, mask), cmap=painted)
    panels[4].plot([], [], "s", color=colors[code], label=name)
_ = figure.legend(loc="outside lower center", ncols=3, frameon=False)

# %% [markdown]
# The same annotation in the four panels of the paper's Figure 3: edema, tumor core, necrosis with
# the enhancing focus, and the whole.

# %%
figures.annotation_panels(patient.image[:, :, z, 0], parts(patient.labels[:, :, z]))

# %% [markdown]
# Intensities in MRI have no unit, and their scale differs between patients. So each modality of
# each patient is normalized to zero mean and unit variance over its non-zero voxels; the background
# stays 0. ("Simple data preprocessing" is all that the paper says.)
#
# What this notebook trains is the paper's experiment with a few changes to its recipe: fewer
# targets, filters, slices and epochs, on 24 synthetic patients with voxels of 2 mm instead of 1 mm.
# The patients are written to disk in the files of BraTS 2017, found there, decoded once into a
# store, and split **by patient** into training and validation cases.

# %%
changes = {
    "data.window": (96, 96, 64),
    "data.slice_step": 4,
    "model.targets": (("WT",),),
    "model.options.filters": 8,
    "train.batch_size": 8,
    "train.epochs": 8,
    "train.optimizer": "adam",
}
shortened = replace(
    PAPER,
    profiles={"notebook": replace(PAPER.profiles["paper"], changes=changes)},
    phantom=replace(PAPER.phantom, cases=24, size=(120, 120, 77)),
)
short = recipe.override(RECIPE, changes)
folder = experiment.make_phantom(shortened, work)
cohort = steps.load_cohort(folder, experiment.store_folder(work, folder, short), task_of(short))
print(f"{cohort.name}: {len(cohort.training)} training, {len(cohort.validation)} validation cases")

means = pd.DataFrame(
    [[channel["mean"] for channel in case.statistics] for case in cohort.store.cases.values()],
    index=list(cohort.store.cases),
    columns=[style.channel_title(name) for name in dataset.channels],
)
means.agg(["min", "median", "max"]).rename("{} of the patients' means".format).astype(int)

# %% [markdown]
# ### The window, and what it cuts off
#
# "Because there are many useless pixels on the edge of the image, the middle 176\*176\*128 is taken
# as the input." Most of what is cut off is background, but not all of it.

# %%
cuts = {
    "axial": (patient.image[:, :, z, 0], x_window, y_window, "x", "y", "upper"),
    "coronal": (patient.image[:, 128, :, 0], x_window, z_window, "x", "z", "lower"),
    "sagittal": (patient.image[150, :, :, 0], y_window, z_window, "y", "z", "lower"),
}
proportions = {"width_ratios": [1, 1.55, 1.55]}
figure, panels = plt.subplots(1, 3, figsize=(11, 3.2), layout="compressed", gridspec_kw=proportions)
for panel, (name, (image, across, up, a, b, origin)) in zip(panels, cuts.items()):
    panel.imshow(image.T, cmap="gray", origin=origin, vmax=np.percentile(image, 99.5))
    corner = (across.start - 0.5, up.start - 0.5)
    extent = (across.stop - across.start, up.stop - up.start)
    panel.add_patch(plt.Rectangle(corner, *extent, fill=False, ec="#E69F00", lw=1.5))
    panel.set(title=name, xlabel=f"{a} (voxels)", ylabel=f"{b} (voxels)")

# %% [markdown]
# Predictions are therefore pasted back into the full grid before they are scored, and any tumor
# outside of the window counts as missed. The best Dice that a perfect network could reach is then
# $2 |T_\mathrm{in}| / (|T_\mathrm{in}| + |T|)$. For the 24 patients, with the paper's window in
# voxels of 2 mm (88x88x64):

# %%
rows_of_table = {}
for name, case in cohort.store.cases.items():
    window = volumes.window(case.full_shape, (88, 88, 64))
    labels = case.full_labels()
    masks = {"brain": case.full_image().any(axis=-1), "tumor": labels > 0}
    share = {what: mask[window].sum() / mask.sum() for what, mask in masks.items()}
    rows_of_table[name] = {f"{what} outside, %": 100 * (1 - s) for what, s in share.items()}
    rows_of_table[name]["best Dice, %"] = 200 * share["tumor"] / (share["tumor"] + 1)
lost = pd.DataFrame(rows_of_table).T
lost.agg(["min", "median", "max"])

# %% [markdown]
# Here the window cuts off some brain of every patient, and no tumor of any. Nothing guarantees this
# for real patients. Where a window does cut off tumor, the scores show it.

# %% [markdown]
# ## 5. A short training
#
# The paper trains three networks (WT, TC, ET) for 20 epochs on some 242 patients, and Table III
# compares them with networks that were trained without the edge loss. Here, only the network for
# the whole tumor is trained, with and without the edge loss. It is small enough to train in about a
# minute on two CPU cores. A recipe is plain data, so its differences from the paper's can be
# listed:

# %%
changed = recipe.differences(short, RECIPE)
pd.DataFrame(changed, index=["here", "paper"]).T[["paper", "here"]]

# %% [markdown]
# Adam replaces plain gradient descent, because a learning rate of 0.005 without momentum hardly
# changes the weights in so few steps. The window has 96x96 pixels of 2 mm, because 96 is the next
# size after 88 that can be halved four times. All numbers that follow belong to *this* recipe and
# to synthetic patients.
#
# `experiment.run` is what the command line calls too: it trains, predicts the validation cases,
# scores them and writes a report, all into one run folder. Its progress is printed below when it is
# done.

# %%
request = experiment.Request(
    out=work / "run", folder=None, profile="notebook", command="this notebook", work=work
)
with contextlib.redirect_stdout(io.StringIO()) as printed:
    experiment.run(shortened, request)
print(printed.getvalue().partition("\n# ")[0])  # without the report's tables
run = RunFolder(request.out)

# %%
charts.learning_curves(run.logs())

# %% [markdown]
# How to read these curves: the two losses cannot be compared, because one of them has the edge term
# as well. A training point is the mean over an epoch, during which the network improves, while the
# validation loss is measured at the end of the epoch; so the first training point looks worse. On
# the other hand, validation uses the moving averages of batch normalization. With a momentum of
# 0.99, the default of Keras 2.2.4, these still keep $0.99^{40} = 67\,\%$ of their initial values
# after the first epoch of 40 steps. Pixel accuracy starts close to 1, because most pixels are
# background; so the "accuracy" that controls the learning rate is read as the validation Dice, as
# everywhere else in the paper.
#
# ### What the gates do
#
# The figure shows the spatial gates of the four CBAMs on a slice of a validation case, each scaled
# to its own range. The first skip (left) has the full resolution, the last one an eighth of it. A
# gate multiplies the encoder's features, so where it is dark, less of them reaches the decoder.
# This is no explanation of the prediction: a gate may be useful without marking the tumor.

# %%
trained = run.network("with_edge_loss", ("WT",))
task = run.variant("with_edge_loss").task
validation = task.batches(cohort.store, cohort.validation, ("WT",), training=False)
batches = [validation.batch(0, step) for step in range(validation.steps_per_epoch)]
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
# The run has predicted each validation case slice by slice, pasted the predictions into the full
# grid, written them as NIfTI with the affine of the input, and scored them on the full grid by the
# rules of BraTS.

# %% tags=["scores"]
scores = run.scores()
columns_of_table = ["dice", "sensitivity", "specificity", "hd95_mm"]
scores.set_index(["variant", "case"])[columns_of_table].map("{:.3f}".format)

# %% [markdown]
# The case with the median Dice. The network was trained for the whole tumor alone, so the predicted
# label map has one label, painted as edema.

# %%
name = pick_cases(scores, "with_edge_loss")["median"]
case = cohort.store.cases[name]
path = run.prediction("with_edge_loss", name)
dice = scores.query("variant == 'with_edge_loss' and case == @name").set_index("region")["dice"]
figures.volume_overlay(
    {"flair": case.full_image()[..., dataset.channels.index("flair")]},
    case.full_labels(),
    dataset.read_labels(path, case),
    labels=dataset.labels,
    regions=dataset.regions,
    title=f"median case: {name}",
    dice=dict(dice),
    spacing_mm=case.spacing_mm,
)

# %% [markdown]
# The same case as the edge loss sees it, for both variants: probabilities above, filter responses
# below. This is the report's figure.

# %%
Image(run.figure("edge_maps").read_bytes(), width=800)

# %% [markdown]
# ### Beside the published tables
#
# The paper's rows beside those measured here, Dice in %. Cells that were not measured stay empty.

# %%
published = tables.read_published("experiments/dcabes2020/published.csv")
printed_tables = [
    replace(spec, columns=tuple(column for column in spec.columns if column.metric in scores))
    for spec in PAPER.tables
    if spec.id in set(published["table"])
]
cells = pd.concat([tables.build_table(spec, published, scores) for spec in printed_tables])
key = ["table", "row", "variant"]
wide = cells.pivot(index=key, columns="region", values=["published", "measured"])
order = cells.drop_duplicates(key).set_index(key).index
columns_of_table = [
    (kind, region) for kind in ("published", "measured") for region in brats.REGIONS
]
wide.reindex(order)[columns_of_table].map(lambda dice: "" if pd.isna(dice) else f"{dice:.2f}")

# %% [markdown]
# The two columns cannot be compared. The report of every run says why, in these words:

# %%
measured = RunData(run.recipe, run.provenance(), scores, run.logs())
reasons = why_not_comparable(measured, PAPER.reference)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %% [markdown]
# So few cases cannot show which of the two variants is better, either:

# %%
compared = statistics.compare(scores, "without_edge_loss", "with_edge_loss")
compared[["region", "n", "baseline", "variant", "difference", "p", "note"]].set_index("region")

# %%
temporary.cleanup()

# %% [markdown]
# ## 7. With real data
#
# The organizers of the challenge give out BraTS 2017 after registration. Later years contain the
# same patients and more, and can be read too. Name the folder; the cases may lie some levels below
# it:
#
# ```
# keras-medseg check /path/to/MICCAI_BraTS17          every problem of every case, in one go
# make reproduce-dcabes2020 DATA=/path/to/MICCAI_BraTS17
# ```
#
# That is the paper's recipe: six trainings of 20 epochs, best done on a GPU. The same command
# continues an interrupted run. The run ends with `report.html`: both tables, confidence intervals
# over cases, a paired test, learning curves and overlays. `PROFILE=quick` shortens the run, and
# `SET` changes any field of the recipe, such as `SET="train.epochs=2"`.
#
# Where to go from here: try another reading of the paper
# (`SET="model.options.residual_block=bottleneck model.options.shortcut_norm=True"`,
# `SET="train.loss=cross_entropy_and_learned_edge train.loss_options={}"`), or use the parts in your
# own code: `keras_medseg.build("residual_attention_unet", input_shape=(None, None, 4))` is a Keras
# model, and `keras_medseg.losses.get("cross_entropy_and_edge", edge_weight=0.5)` is a Keras loss.
