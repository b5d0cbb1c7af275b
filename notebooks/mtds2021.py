# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An attention network with multi-task deep supervision
#
# Brain tumors in MRI, segmented slice by slice, after a paper of Frontiers in Oncology 2021
# ([doi 10.3389/fonc.2021.704850](https://doi.org/10.3389/fonc.2021.704850)). One network finds the
# whole tumor. Three parts of it are the paper's own: residual modules that weight their own
# output (APR), squeeze-and-excitation with Dropout (SE), and, in training, three auxiliary outputs
# that learn the parts of the tumor.
#
# This notebook shows network, loss, learning rate and data, trains for a minute or two, shows all
# four outputs, and post-processes the result as the paper does. It calls the public interface of
# `keras_medseg` and trains in the same way as the command line does. It needs neither data nor an
# internet connection: the patients are synthetic.
#
# The text that this reproduction works from has lost its figures, most of its equations and all
# values of its tables. Nothing that was lost is filled in here. `experiments/mtds2021/ledger.toml`
# lists the open points and how each of them was decided, with one entry per statement of the paper.

# %%
import contextlib
import inspect
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
import tensorflow as tf
from IPython.display import Image, Markdown
from scipy import ndimage

import keras_medseg
from experiments.mtds2021.recipe import EXPERIMENTS, RECIPE
from keras_medseg import losses, recipe
from keras_medseg.data.datasets import brats
from keras_medseg.data.transforms import volumes
from keras_medseg.evaluation.metrics import metric_label
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.inference import complexity, postprocess
from keras_medseg.models import mtds_r2unet
from keras_medseg.phantoms import brain
from keras_medseg.reporting import tables
from keras_medseg.reporting.figures import charts, style
from keras_medseg.reporting.figures import volumes as figures
from keras_medseg.reporting.report import RunData, why_not_comparable
from keras_medseg.runs import experiment, steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks import task_of

logging.getLogger("tensorflow").setLevel("ERROR")
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.2f}".format
pd.options.display.width = 100
pd.options.display.max_colwidth = 80
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)
PAPER = EXPERIMENTS["BraTS2020"]

# %% [markdown]
# ## 1. The network
#
# "Encoder consists of 3 down-sampling, 4 APR module, and 4 Squeeze-and-excitation (SE) modules",
# the decoder of "3 up-sampling, 3 pre-activation convolution blocks, 3 SE modules, 1 convolutional
# layer (1x1), and 1 sigmoid" (section 2.1). The table is read from the layers of the built network,
# which have these names. A head is an auxiliary output.

# %%
network = keras_medseg.build("mtds_r2unet")


def size(tensor):
    return "*".join(map(str, tensor.shape[1:]))


def parameters(module):
    layers = [layer for layer in network.layers if layer.name.split("_")[0] == module]
    return sum(layer.count_params() for layer in layers)


modules = pd.DataFrame(
    {
        f"level {level}": {
            "output of APR": size(network.get_layer(f"APR{level}_gate").output),
            "APR": parameters(f"APR{level}"),
            "SE": parameters(f"SE{level}"),
            "head": parameters(f"Output{level}"),
            "decoder's block": parameters(f"PreActivation{level}"),
            "decoder's SE": parameters(f"SE{8 - level}") if level < 4 else 0,
        }
        for level in (1, 2, 3, 4)
    }
).T
together = modules.drop(columns="output of APR").to_numpy().sum() + parameters("Output")
print(f"together, with the last 1x1 convolution: {together:,} of {network.count_params():,}")
modules.replace(0, "")

# %% [markdown]
# ### The encoder's module
#
# A *pre-activation residual unit*, $x_1 = x + F(x)$ with $F$ twice (batch norm, ReLU, 3x3
# convolution), and then a gate that sees nothing but the unit's own output:
#
# $$y = x_1 \odot \sigma\big(W\,\mathrm{ReLU}(x_1)\big)$$
#
# with a 1x1 convolution $W$. The paper compares it with the gate of Attention U-Net, which sits on
# the skip and depends on the decoder's features as well. This gate depends on the unit's output
# alone, and has one weight per pixel. (The paper prints the sigmoid without its minus sign, which
# is a misprint.)


# %%
def source(*functions):
    text = "\n\n".join(inspect.getsource(function) for function in functions)
    return Markdown(f"```python\n{text}```")


source(mtds_r2unet.apr)

# %% [markdown]
# ### Three heads
#
# In training the network has three more outputs. "The enhancing tumor ground truth is used as the
# label of first deep supervision, and the shallow layers of network can better capture the boundary
# details"; necrosis and edema follow. Only a figure that is lost showed where the heads sit. Here,
# each of the first three levels of the encoder has one: a 1x1 convolution, nearest-neighbor
# up-sampling to the full size, and a sigmoid. The convolutions before a head determine its
# receptive field. (In addition, every SE module gets the mean over the whole slice.) Other places
# are options; the README of the experiment compares all of them.

# %%
DATASET = brats.Brats()
rows, pixels, step = [], 1, 1
for level, target in enumerate(RECIPE.model.auxiliary, 1):
    pixels += 2 * 2 * step
    head = network.get_layer(f"Output{level}_conv")
    rows.append(
        {
            "head": f"Output{level}",
            "learns": DATASET.labels[DATASET.targets[target][0]],
            "computed at": size(head.output),
            "given at": size(network.get_layer(f"Output{level}").output),
            "sees": f"{pixels}x{pixels} pixels",
        }
    )
    pixels, step = pixels + step, 2 * step
pd.DataFrame(rows).set_index("head")

# %% [markdown]
# The first head sees 5x5 pixels. It can learn what enhancing tumor looks like, but not where a
# tumor is likely to be. Section 6 shows the consequences.
#
# ### Switches
#
# Every ablation of the paper that changes the network, and every open point about the network, is
# an argument of `build`. The network without heads is also the one for inference: all other layers
# keep their names and shapes.

# %%
SWITCHES = {
    "default": {},
    "Table 1, SE without Dropout": {"se_dropout": 0.0},
    "Table 4, without heads": {"supervision": "none"},
    "Table 3, also without gates": {"supervision": "none", "encoder_block": "residual"},
    "Table 3, and without shortcut": {"supervision": "none", "encoder_block": "plain"},
    "Table 3, gates on the skips": {
        "supervision": "none",
        "encoder_block": "residual",
        "skip_gates": "oktay",
    },
    "open: gates and skips of one scale": {
        "supervision": "none",
        "encoder_block": "residual",
        "skip_gates": "same_scale",
    },
    "open: heads on the decoder, the finest first": {"supervision": "decoder"},
    "open: heads on the decoder, coarse to fine": {"supervision": "coarse_to_fine"},
    "open: a decoder for each task": {"supervision": "branches"},
    "open: skips are added": {"skips": "add"},
    "open: a gate for every channel": {"gate": "element"},
}
counts = {
    name: keras_medseg.build("mtds_r2unet", **options).count_params()
    for name, options in SWITCHES.items()
}
arguments = {
    name: ", ".join(f"{option}={value!r}" for option, value in options.items())
    for name, options in SWITCHES.items()
}
table = pd.DataFrame({"parameters": counts, "arguments of build": arguments})
table.assign(parameters=table["parameters"].map("{:,}".format))

# %% [markdown]
# "Our method has the least number of parameters", says the text beside Table 6, whose numbers are
# lost. The abstract adds "low computational cost". These are the networks that the paper compares
# itself with, with the same input and output, each with its own published widths. The heads of the
# deep supervision, which serve in training alone, are counted too:

# %%
compared, operations = {}, {}
for name, changes in PAPER.profiles["paper-compare"].variants.items():
    baseline = recipe.override(RECIPE, changes)
    shape = (*baseline.data.input_size, len(DATASET.channels))
    built = keras_medseg.build(baseline.model.name, input_shape=shape, **baseline.model.options)
    compared[name] = built.count_params()
    operations[name] = complexity.multiply_adds(built) / 1e9
columns = {"parameters": compared, "multiply-adds (10^9)": operations}
table = pd.DataFrame(columns).sort_values("parameters")
table.assign(parameters=table["parameters"].map("{:,}".format))

# %% [markdown]
# ## 2. The loss
#
# Every output $k$ is trained with the sum of cross entropy and Dice loss (equation 9). Equation 1
# adds the losses of the outputs without weights, so here each weight is 1:
#
# $$L = \sum_k w_k \left( -\frac{1}{N} \sum_i \big[q_i \ln p_i + (1 - q_i) \ln (1 - p_i)\big]
# + 1 - \frac{2 \sum_i p_i q_i}{\sum_i p_i^2 + \sum_i q_i^2} \right)$$

# %%
print(RECIPE.train.loss, RECIPE.train.loss_options)
source(losses.dice_loss)

# %% [markdown]
# Why both? "The foreground area is much smaller than the background area." The example is the slice
# of a synthetic patient with the largest tumor area, and a prediction of 0.1 everywhere. The table
# gives the share of each loss's absolute gradient (with respect to the logits) that falls on the
# pixels of the region; the rest falls on the background.

# %%
patient = brain.brats_case(seed=0, index=1)
z = figures.largest_slice(patient.labels, patient.labels)
x_window, y_window, _ = volumes.window(patient.labels.shape, RECIPE.data.window)
annotated = patient.labels[x_window, y_window, z]
OUTPUTS = (*RECIPE.model.targets[0], *RECIPE.model.auxiliary)
masks = {name: np.isin(annotated, DATASET.targets[name]).astype("float32") for name in OUTPUTS}


def share_on_region(loss, mask, probability=0.1):
    """Part of the gradient's absolute values that lies on the mask's pixels."""
    logits = tf.fill((1, *mask.shape, 1), float(np.log(probability / (1 - probability))))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_mean(loss(mask[None, :, :, None], tf.sigmoid(logits)))
    gradient = np.abs(tape.gradient(value, logits).numpy()[0, :, :, 0])
    return float(gradient[mask > 0].sum() / gradient.sum())


rows = {
    name: {
        "part of the slice, %": 100 * mask.mean(),
        "cross entropy's gradient on it, %": 100 * share_on_region(losses.cross_entropy, mask),
        "Dice's gradient on it, %": 100 * share_on_region(losses.dice_loss, mask),
    }
    for name, mask in masks.items()
}
pd.DataFrame(rows).T

# %% [markdown]
# The smaller the region, the smaller its share of the cross entropy's gradient. Of the gradient of
# the Dice loss, each region has more than half. On the other hand, a very small region makes "the
# training unstable", and without any object the Dice loss has no gradient. Here is the loss of a
# *perfect* prediction for a batch of four slices, one of them with tumor:

# %%
batch = np.zeros((4, *annotated.shape, 1), "float32")
batch[0, :, :, 0] = masks["WT"]
for per in losses.DICE_SUMS:
    value = float(np.mean(losses.dice_loss(batch, batch, per=per)))
    print(f"Dice loss, sums over the {per}: {value:.2f}")

# %% [markdown]
# If the sums are taken slice by slice, each of the three empty slices has a loss of 1, whatever is
# predicted, so the mean is 3/4. The sums of equation 9 run over the $N$ examples. Here they are
# taken over the whole batch, so that the network also learns from slices without tumor. For a batch
# without any enhancing tumor, the loss of that output is still 1: the loss of a good network does
# not approach 0.
#
# ## 3. The learning rate
#
# The optimizer is Adam with a learning rate of 1e-4, and "the algorithm of learning rate decay is
# like as (24)". Reference 24 is Myronenko, whose rate in epoch $e$ of $E$ is
#
# $$\alpha_e = \alpha_0 \left(1 - \frac{e}{E}\right)^{0.9}$$

# %%
train = RECIPE.train
print(train.optimizer, train.learning_rate, train.schedule, train.schedule_options)


def myronenko(train):
    """The rate of every epoch, from the formula."""
    return train.learning_rate * (1 - np.arange(train.epochs) / train.epochs) ** 0.9


figure, panel = plt.subplots(figsize=(6, 2.4), layout="constrained")
panel.step(np.arange(train.epochs) + 1, myronenko(train), where="mid", color="#0072B2")
panel.set(xlabel="epoch", ylabel="learning rate", xlim=(0, train.epochs + 1), ylim=(0, None))
panel.ticklabel_format(axis="y", style="sci", scilimits=(-4, -4))
panel.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## 4. The data
#
# The paper uses BraTS 2018 to 2020: registered, skull-stripped volumes of 240x240x155 voxels of
# 1 mm, four modalities, and a label map. Cases repeat from year to year (all of 2019 are also in
# 2020), so cases with equal voxels are used once. The ablations use 2020 alone.
#
# Images of real patients cannot be shipped with a notebook. The synthetic patients of
# `keras_medseg.phantoms` come in the same files with the same label codes. They have the contrasts
# of each modality, a bias field, noise, intensity scales that depend on the scanner, and bright
# structures that are no tumor.
#
# What this notebook trains is the paper's experiment with a few changes to its recipe, on 24
# synthetic patients at half the resolution. The patients are written to disk in the files of
# BraTS 2020, found there, decoded once into a store, and split **by patient**. (Their headers still
# say 1 mm, so a millimeter below is one voxel.)

# %%
changes = {
    "data.window": (72, 88, 77),
    "data.slice_step": 4,
    "model.options.filters": 16,
    "train.batch_size": 4,
    "train.epochs": 8,
    "train.learning_rate": 1e-3,
}
variants = {
    name: PAPER.profiles["paper"].variants[name] for name in ("mtds", "before_postprocessing")
}
shortened = replace(
    PAPER,
    profiles={"notebook": experiment.Profile(changes, variants)},
    phantom=replace(PAPER.phantom, cases=24, size=(120, 120, 77)),
)
short = recipe.override(RECIPE, changes)
folder = experiment.make_phantom(shortened, work)
cohort = steps.load_cohort(folder, experiment.store_folder(work, folder, short), task_of(short))
print(f"{cohort.name}: {len(cohort.training)} training, {len(cohort.validation)} validation cases")

# %% [markdown]
# ### Min-max, volume by volume
#
# "After cropping the image, we use min-max normalization": "we calculated the maximum and minimum
# pixel intensity of the 3D brain data of each brain tumor patient in a single modality", and every
# modality is scaled to [0, 1] by the extremes of its window, all slices together. The figure shows
# one slice of a patient as the network gets it, and its labels in the colors that all figures of
# this package use. Each of the three auxiliary outputs learns one label; the main output learns all
# of them together.

# %%
in_brain = patient.image.any(axis=-1)
rows, columns = (
    slice(max(edge.min() - 4, 0), edge.max() + 5) for edge in np.nonzero(in_brain[:, :, z])
)
scaled = patient.image / patient.image[x_window, y_window].max(axis=(0, 1, 2))


def draw(panel, image, title, **options):
    """Anterior on top, the patient's right on the left."""
    drawn = panel.imshow(image[rows, columns].T, **{"cmap": "gray", **options})
    panel.set(title=title, xticks=[], yticks=[])
    return drawn


def paint(panel, labels):
    for code, color in style.label_colors(DATASET.labels).items():
        mask = (labels == code)[rows, columns].T
        painted = plt.matplotlib.colors.ListedColormap([color])
        panel.imshow(np.ma.masked_where(~mask, mask), cmap=painted)
        panel.plot([], [], "s", color=color, label=DATASET.labels[code])


figure, panels = plt.subplots(1, 5, figsize=(12, 3.3), layout="compressed")
for channel, name in enumerate(DATASET.channels):
    title = style.channel_title(name)
    shown = draw(panels[channel], scaled[:, :, z, channel], title, vmin=0, vmax=1)
figure.colorbar(shown, ax=panels[:4], shrink=0.6, location="left")
flair = scaled[:, :, z, DATASET.channels.index("flair")]
draw(panels[4], flair, "labels", vmax=flair.max())
paint(panels[4], patient.labels[:, :, z])
_ = figure.legend(loc="outside lower center", ncols=3, frameon=False)

# %% [markdown]
# T1ce is dark, because its brightest voxel lies in a vessel, and that one voxel determines the
# scale of all slices. For each of the 24 patients, take the median of the brain's voxels
# after min-max scaling. The table gives the smallest, the median and the largest of these:

# %%
medians = {style.channel_title(name): [] for name in DATASET.channels}
for case in cohort.store.cases.values():
    image = case.full_image()[volumes.window(case.full_shape, short.data.window)]
    for channel, name in enumerate(medians):
        brain_voxels = image[..., channel][image[..., channel] > 0]
        medians[name].append(np.median(brain_voxels) / brain_voxels.max())
table = pd.DataFrame(medians)
table.agg(["min", "median", "max"])

# %% [markdown]
# ### The window
#
# "We crop each image to a size of 144x176 to preserve as much brain region information as
# possible". Predictions are pasted back into the full grid before they are scored. Brains are
# longer from front to back, so 176 is the size along y. Tumor outside of the window counts as
# missed; the best Dice that a perfect network could reach is
# $2 |T_\mathrm{in}| / (|T_\mathrm{in}| + |T|)$. For the 24 patients, at their resolution:

# %%
rows_of_table = {}
for name, case in cohort.store.cases.items():
    inside = volumes.window(case.full_shape, short.data.window)
    cut = {"brain": case.full_image().any(axis=-1), "tumor": case.full_labels() > 0}
    share = {what: mask[inside].sum() / mask.sum() for what, mask in cut.items()}
    rows_of_table[name] = {f"{what} outside, %": 100 * (1 - s) for what, s in share.items()}
    rows_of_table[name]["best Dice, %"] = 200 * share["tumor"] / (share["tumor"] + 1)
pd.DataFrame(rows_of_table).T.agg(["min", "median", "max"])

# %% [markdown]
# ## 5. A short training
#
# A recipe is plain data, so its differences from the paper's can be listed. At half the resolution,
# the paper's window of 144x176 voxels is 72x88.

# %%
changed = recipe.differences(short, RECIPE)
pd.DataFrame(changed, index=["here", "paper"]).T[["paper", "here"]].map(str)

# %% [markdown]
# `experiment.run` is what the command line calls too: it trains, predicts the validation cases,
# scores them and writes a report, all into one run folder. Its progress is printed below when it is
# done. The run has two variants: the paper's result, and the same before post-processing. They
# differ only after training, so one network is trained for both.

# %%
request = experiment.Request(
    out=work / "run", folder=None, profile="notebook", command="this notebook", work=work
)
with contextlib.redirect_stdout(io.StringIO()) as printed:
    experiment.run(shortened, request)
print(printed.getvalue().partition("\n# ")[0])  # without the report's tables
run = RunFolder(request.out)

# %%
log = run.logs()["mtds-WT"]
off = np.abs(log["learning_rate"] / myronenko(short.train) - 1).max()
print(f"largest difference between the logged learning rate and the formula: {off:.1e}")
curves = charts.learning_curves(run.logs())
curves.set_figwidth(6)
curves

# %% [markdown]
# All numbers that follow belong to *this* recipe and to synthetic patients. The loss is the sum
# over four outputs of two terms each. Validation uses the moving averages of batch normalization,
# which lag about a hundred steps behind, because the momentum is 0.99 (the default of TensorFlow).
#
# ### What the gates and SE do
#
# The figure shows the gates of the four APR modules on a slice of a validation case, each scaled to
# its own range. A gate is computed from one pixel of its level and multiplies all channels of that
# pixel. Where it is dark, less of the features reaches the next level.

# %%
trained = run.network("mtds", ("WT",), auxiliary=True)
task = run.variant("mtds").task
validation = task.batches(cohort.store, cohort.validation, ("WT",), training=False)
batches = [validation.batch(0, step) for step in range(validation.steps_per_epoch)]
images, targets = (np.concatenate(parts) for parts in zip(*batches))
chosen = int(targets[..., 1].sum(axis=(1, 2)).argmax())
one = images[chosen : chosen + 1]


def probe(name):
    return keras.Model(trained.input, trained.get_layer(name).output)(one, training=False).numpy()


rows = columns = slice(None)
figure, panels = plt.subplots(1, 5, figsize=(12, 3.1), layout="compressed")
draw(panels[0], one[0, :, :, 0], "FLAIR and whole tumor")
panels[0].contour(targets[chosen, :, :, 0].T, levels=[0.5], colors="#E69F00", linewidths=1)
for level, panel in enumerate(panels[1:], 1):
    gate = probe(f"APR{level}_gate_sigmoid")[0, :, :, 0]
    title = f"APR{level}, {gate.shape[0]}*{gate.shape[1]}:\n{gate.min():.2f} to {gate.max():.2f}"
    draw(panel, gate, title, cmap="viridis")

# %% [markdown]
# One would expect bright tumors on dark brains ("to suppress the feature response of irrelevant
# background regions"). In this run, levels 2 and 3 rather show the opposite, and the tumor is found
# nevertheless: the layers after a gate can use a low value as well as a high one. A few steps on
# synthetic patients prove nothing about the paper, but they show what to look for.
#
# SE weights the channels, in the same way for all pixels of a slice. "The random change of channel
# weight helps the network": in a training step, Dropout sets each weight to 0 with a probability of
# 0.2 and divides the others by 0.8. Here is the last SE module on the same slice:

# %%
weights = probe("SE7_expand")
dropped = trained.get_layer("SE7_dropout")(weights, training=True).numpy().ravel()
channels = np.arange(weights.size)
figure, panel = plt.subplots(figsize=(8, 2.4), layout="constrained")
panel.bar(channels, weights.ravel(), color="#BBBBBB", label="at inference")
panel.plot(channels, dropped, "o", color="#0072B2", ms=5, label="in one training step")
panel.set(xlabel="channel", ylabel="weight", ylim=(-0.05, None), xticks=channels)
panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
panel.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ## 6. Four outputs
#
# The run has predicted each validation case slice by slice, pasted the predictions into the full
# grid, written them as NIfTI with the affine of the input, and scored them on the full grid, once
# before and once after the post-processing of section 7. The report's figure shows one slice of the
# case with the median Dice: above, the annotation that each output was trained for; below, the
# probabilities of the main output (WT) and of the auxiliary ones, before any post-processing.

# %%
Image(run.figure("supervision").read_bytes(), width=900)

# %% [markdown]
# The head for enhancing tumor is sharp but uncertain: it finds a part of the enhancing tumor, and
# responds weakly to healthy tissue elsewhere, which looks the same within 5x5 pixels. The head for
# edema sits two levels deeper and predicts blocks of 4x4 pixels. Neither needs to be good: the
# heads serve to train the encoder, and they contribute nothing to the prediction.
#
# The Dice of each output on the whole volumes of all validation cases, at a threshold of 0.5 (empty
# where a patient does not have the label):

# %%
joined = keras.Model(trained.input, keras.layers.Concatenate()(trained.outputs))
probabilities, rows_of_table = {}, {}
for name in cohort.validation:
    case = cohort.store.cases[name]
    predicted = task.predict_window(joined, case)
    probabilities[name] = volumes.paste(predicted, case.full_shape)
    found, labels = probabilities[name] > 0.5, case.full_labels()
    rows_of_table[name] = {}
    for k, output in enumerate(OUTPUTS):
        truth = np.isin(labels, DATASET.targets[output])
        both = 2 * (truth & found[..., k]).sum()
        dice = both / (truth.sum() + found[..., k].sum()) if truth.any() else np.nan
        rows_of_table[name][output] = dice
by_output = pd.DataFrame(rows_of_table).T
by_output.map(lambda dice: "" if np.isnan(dice) else f"{dice:.2f}")

# %% [markdown]
# One patient in the colors of the labels: the annotation, and for every voxel the auxiliary output
# with the highest probability, where that is above 0.5.

# %%
scores = run.scores()
shown_above = pick_cases(scores, "mtds")["median"]
name = by_output["ET"].drop(shown_above).idxmax()
case = cohort.store.cases[name]
image = case.full_image()
codes = np.array([DATASET.targets[output][0] for output in OUTPUTS[1:]], np.uint8)
auxiliary = probabilities[name][..., 1:]
parts = np.where(auxiliary.max(axis=-1) > 0.5, codes[auxiliary.argmax(axis=-1)], 0)
figures.volume_overlay(
    {channel: image[..., DATASET.channels.index(channel)] for channel in ("flair", "t1ce")},
    case.full_labels(),
    parts.astype(np.uint8),
    labels=DATASET.labels,
    regions=DATASET.regions,
    title=f"{name}: the auxiliary outputs alone",
    dice=dict(by_output.loc[name, list(OUTPUTS[1:])]),
    spacing_mm=case.spacing_mm,
)

# %% [markdown]
# ## 7. Post-processing in three dimensions
#
# "We concatenate all the 2D segmentation results of each patient into 3D voxels ... When the volume
# of other predicted tumors is less than one-tenth of the baseline", the largest one, "we determine
# that these predicted tumors are false positives." The table lists the connected components of the
# patient who loses the most voxels:

# %%
masks_of = {}
for name in cohort.validation:
    case = cohort.store.cases[name]
    paths = [run.prediction(variant, name) for variant in ("before_postprocessing", "mtds")]
    before, after = (DATASET.read_labels(path, case) > 0 for path in paths)
    masks_of[name] = before, after, case.full_labels() > 0
name = max(masks_of, key=lambda name: masks_of[name][0].sum() - masks_of[name][1].sum())
before, after, truth = masks_of[name]

components, count = ndimage.label(before, structure=np.ones((3, 3, 3)))
voxels = np.bincount(components.ravel())[1:]
of_tumor = np.bincount(components[truth], minlength=count + 1)[1:]
table = pd.DataFrame({"voxels": voxels, "of them tumor": of_tumor})
largest = voxels.max(initial=0)  # after one epoch, a network may find nothing
table["% of the largest"] = 100 * table["voxels"] / largest
table["verdict"] = np.where(voxels >= 0.1 * largest, "kept", "dropped")
print(f"{name}: {count} components, the largest of them:")
table.sort_values("voxels", ascending=False).head(6).reset_index(drop=True)

# %%
DIRECTIONS = {
    "from above": (2, "x", "y"),
    "from the front": (1, "x", "z"),
    "from the side": (0, "y", "z"),
}
COLORS = {"kept": "#0072B2", "dropped": "#E69F00"}
in_brain = cohort.store.cases[name].full_image().any(axis=-1)

figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), layout="compressed")
for panel, (title, (axis, across, up)) in zip(panels, DIRECTIONS.items()):
    origin = "upper" if up == "y" else "lower"
    panel.imshow(in_brain.any(axis=axis).T, cmap="gray_r", vmax=8, origin=origin)
    for mask, color in zip((after, before & ~after), COLORS.values()):
        flat = mask.any(axis=axis).T
        painted = plt.matplotlib.colors.ListedColormap([color])
        panel.imshow(np.ma.masked_where(~flat, flat), cmap=painted, origin=origin)
    panel.contour(truth.any(axis=axis).T, levels=[0.5], colors="black", linewidths=1)
    panel.set(title=title, xlabel=f"{across} (voxels)", ylabel=f"{up} (voxels)")
handles = [plt.Rectangle((0, 0), 1, 1, color=color, label=what) for what, color in COLORS.items()]
handles.append(plt.Line2D([], [], color="black", lw=1, label="annotation"))
_ = figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)

# %% [markdown]
# Why in three dimensions, when the network works slice by slice? The same rule, applied to each
# slice alone, would compare a component with the other components of *its* slice. In slices without
# tumor, a false component would be the largest one and would stay. In slices where the tumor begins
# or ends, small parts of it would be dropped.


# %%
def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def clean_slices(mask):
    """The paper's rule, slice by slice."""
    slices = np.moveaxis(mask.astype(np.uint8), 2, 0)
    share = short.predict.smallest_component
    cleaned = [postprocess.drop_small_components(piece, share) for piece in slices]
    return np.stack(cleaned, axis=2) > 0


rows_of_table = {}
for name, (before, after, truth) in masks_of.items():
    cleaned = {"in slices": clean_slices(before), "in 3-D": after}
    rows_of_table[name] = {
        "Dice before": f"{dice(before, truth):.4f}",
        **{f"cleaned {how}": f"{dice(mask, truth):.4f}" for how, mask in cleaned.items()},
        **{f"tumor lost {how}": (before & ~mask & truth).sum() for how, mask in cleaned.items()},
    }
pd.DataFrame(rows_of_table).T

# %% [markdown]
# Scores before and after, for every validation case:

# %% tags=["scores"]
columns_of_table = ["dice", "sensitivity", "specificity", "hd95_mm"]
in_order = scores.sort_values(["variant", "case"])
in_order.set_index(["variant", "case"])[columns_of_table].map("{:.3f}".format)

# %% [markdown]
# A distant false component spoils the Hausdorff distance more than the overlap, so where the rule
# drops the last of them, the distance improves most. A false component of more than a tenth of the
# largest one stays, and the distance remains large. Where there is only one component, nothing
# changes, and sometimes a true component is dropped.
#
# ## 8. The ablations, and what is left of the tables
#
# A variant is nothing but a set of changes to the recipe. The table lists all variants that the
# paper describes, and the rows of its tables that each of them is measured for:

# %%
answers = {}
for spec in PAPER.tables:
    for row in spec.rows:
        if row.measured:
            answers.setdefault(row.measured, []).append(f"{spec.id}: {row.label}")
lines = ["| variant | changes | rows |", "|:--|:--|:--|"]
for name, of_variant in PAPER.profiles["paper"].variants.items():
    listed = "<br>".join(f"`{field}={value}`" for field, value in of_variant.items()) or "none"
    lines.append(f"| {tables.spaced(name)} | {listed} | {'<br>'.join(answers[name])} |")
Markdown("\n".join(lines))

# %% [markdown]
# Not one value of the paper's tables survives in the text. Lost cells are shown as lost. The report
# of a run puts what was measured beside what the running text still says. For the run above:

# %%
published = tables.read_published("experiments/mtds2021/published.csv")
cells = pd.concat([tables.build_table(spec, published, scores) for spec in PAPER.tables])
cells["paper"] = cells["note"].str.partition(".")[0].str.lower()
key = ["table", "row", "variant", "paper", "status"]
wide = cells.pivot(index=key, columns="metric", values="measured")[columns_of_table]
wide = wide.reindex(cells.set_index(key).index.unique()).reset_index(["paper", "status"])
wide.map(lambda cell: cell if isinstance(cell, str) else "" if np.isnan(cell) else f"{cell:.3f}")

# %% [markdown]
# The running text says of the lost values:

# %%
lost = cells[cells["note"].str.startswith("Lost. ")].drop_duplicates(["table", "metric"])
lost = lost.assign(name=lost["metric"].map(metric_label))
said = lost.groupby(["table", "note"], sort=False)["name"].agg(", ".join)
lines = [
    f"* {table}, {metrics}: {note.removeprefix('Lost. ')}"
    for (table, note), metrics in said.items()
]
Markdown("\n".join(lines))

# %% [markdown]
# A run on BraTS 2020 with the paper's recipe is checked against these sentences: the command fails
# (exit status 1) if the mean Dice is below the range of Table 5, and paired tests of the
# cases' Dice compare the variants whose order the text gives. The numbers above cannot be compared
# with any of this. The report of every run says why, in these words:

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
# lie some levels below it, and several years may lie side by side:
#
# ```
# keras-medseg check /path/to/MICCAI_BraTS2020_TrainingData      every problem of every case
# make reproduce-mtds2021 DATA=/path/to/MICCAI_BraTS2020_TrainingData
# ```
#
# That is the paper's recipe: seven trainings of 50 epochs, best done on a GPU. The same command
# continues an interrupted run, and the run ends with `report.html`.
# `python -m experiments mtds2021 --compare` trains the other networks of Table 6 instead of the
# ablations. The paper's predictions were scored by the organizers' portal. This command writes the
# predictions of the 125 validation cases in a form that the portal accepts:
#
# ```
# keras-medseg predict RUN /path/to/MICCAI_BraTS2020_ValidationData submission
# ```
#
# Where to go from here: put the heads on the decoder (`SET="model.options.supervision=decoder"`),
# give the auxiliary outputs less weight
# (`SET="train.loss_options.output_weights=(1.0,0.3,0.3,0.3)"`), or use the parts in your own code:
# `keras_medseg.build("mtds_r2unet", input_shape=(None, None, 4))` is a Keras model with four
# outputs, and `keras_medseg.losses.get("cross_entropy_and_dice")` is a Keras loss.
