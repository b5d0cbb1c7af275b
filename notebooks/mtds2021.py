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
# Brain tumours in MRI, segmented slice by slice, after a paper of Frontiers in Oncology 2021
# ([doi 10.3389/fonc.2021.704850](https://doi.org/10.3389/fonc.2021.704850)). One network finds the
# whole tumour. Three things in it are the paper's own: residual modules that weight their own
# output (APR), squeeze-and-excitation with Dropout (SE), and, in training, three auxiliary outputs
# that learn the tumour's parts.
#
# This notebook walks through network, loss, learning rate and data, trains for a minute or two,
# looks at all four outputs, and cleans the result as the paper does. Everything it calls is the
# public interface of `keras_medseg`; it needs no data and no network: the patients are synthetic.
#
# The text that this reproduction works from has lost its figures, most equations and every value
# of its tables. What was lost stays lost here. What is open, and how it was settled, stands in
# `experiments/mtds2021/ledger.toml`, one entry per statement of the paper.

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
from experiments.mtds2021 import figures as paper_figures
from experiments.mtds2021.recipe import EXPERIMENT, RECIPE
from keras_medseg import losses, recipe
from keras_medseg.data.datasets import brats
from keras_medseg.data.transforms import volumes
from keras_medseg.inference import postprocess, predict
from keras_medseg.models import mtds_r2unet
from keras_medseg.phantoms import brain
from keras_medseg.phantoms import brats as phantom
from keras_medseg.reporting import figures, report
from keras_medseg.runs import steps

plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.2f}".format
pd.options.display.width = 100
pd.options.display.max_colwidth = 80
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)

# %% [markdown]
# ## 1. The network
#
# "Encoder consists of 3 down-sampling, 4 APR module, and 4 Squeeze-and-excitation (SE) modules",
# the decoder of "3 up-sampling, 3 pre-activation convolution blocks, 3 SE modules, 1 convolutional
# layer (1x1), and 1 sigmoid" (section 2.1). The table is read from the built network's layers,
# which carry these names; a head is an auxiliary output.

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
# with a 1x1 convolution $W$. Attention U-Net's gate, to which the paper compares it, sits on the
# skip and asks the decoder; this one asks nobody, and costs one weight per channel. (The paper
# prints the sigmoid without its minus sign, a misprint.)


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
# details"; the necrosis and the edema follow. Where the heads sit could be seen only in a figure
# that is lost. Here the first three levels of the encoder carry one each: a 1x1 convolution,
# nearest-neighbour up-sampling to the full size, a sigmoid. What a head can see follows from the
# convolutions before it. (Beside that, every SE knows the mean of the whole slice.)

# %%
rows, pixels, step = [], 1, 1
for level, target in enumerate(RECIPE.model.auxiliary, 1):
    pixels += 2 * 2 * step
    head = network.get_layer(f"Output{level}_conv")
    rows.append(
        {
            "head": f"Output{level}",
            "learns": figures.LABEL_NAMES[brats.TARGETS[target][0]],
            "computed at": size(head.output),
            "given at": size(network.get_layer(f"Output{level}").output),
            "sees": f"{pixels}x{pixels} pixels",
        }
    )
    pixels, step = pixels + step, 2 * step
pd.DataFrame(rows).set_index("head")

# %% [markdown]
# The first one decides on 5x5 pixels. It can learn what enhancing tumour looks like, not where a
# tumour is likely to be; section 6 shows what comes of that.
#
# ### Switches
#
# Every ablation of the paper that changes the network, and every open point, is an argument of
# `build`. Without heads it is also the network for inference: all other layers keep their names
# and shapes.

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
        "skip_gates": True,
    },
    "open: heads on the decoder": {"supervision": "decoder"},
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
# lost. The rivals that it retrained, at its input and output, each with its own published widths:

# %%
compared = {}
for name, changes in EXPERIMENT.profiles["paper-compare"].variants.items():
    rival = recipe.override(RECIPE, changes)
    shape = (*rival.data.input_size, len(brats.MODALITIES))
    built = keras_medseg.build(rival.model.name, input_shape=shape, **rival.model.overrides)
    compared[name] = built.count_params()
table = pd.DataFrame({"parameters": compared}).sort_values("parameters")
table["times the paper's"] = table["parameters"] / compared["mtds"]
table.assign(parameters=table["parameters"].map("{:,}".format))

# %% [markdown]
# ## 2. The loss
#
# Every output $k$ is trained by cross entropy plus Dice, one to one (equation 9); equation 1 adds
# the outputs without weights, so here they weigh 1 each:
#
# $$L = \sum_k w_k \left( -\frac{1}{N} \sum_i \big[q_i \ln p_i + (1 - q_i) \ln (1 - p_i)\big]
# + 1 - \frac{2 \sum_i p_i q_i}{\sum_i p_i^2 + \sum_i q_i^2} \right)$$

# %%
print(RECIPE.train.loss, RECIPE.train.loss_options)
source(losses.dice_loss)

# %% [markdown]
# Why both? "The foreground area is much smaller than the background area." We take the slice with
# the largest tumour of a synthetic patient, a prediction of 0.1 everywhere, and ask how much of
# either loss's gradient (with respect to the logits) falls on the tumour's pixels, and how much on
# the background.

# %%
patient = brain.brats_case(seed=0, index=1)
z = figures.largest_slice(patient.labels, patient.labels)
x_window, y_window, _ = volumes.window(patient.labels.shape, RECIPE.data.window)
annotated = patient.labels[x_window, y_window, z]
OUTPUTS = (*RECIPE.model.networks[0], *RECIPE.model.auxiliary)
masks = {name: np.isin(annotated, brats.TARGETS[name]).astype("float32") for name in OUTPUTS}


def share_on_tumour(loss, mask, probability=0.1):
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
        "cross entropy's gradient on it, %": 100 * share_on_tumour(losses.cross_entropy, mask),
        "Dice's gradient on it, %": 100 * share_on_tumour(losses.dice_loss, mask),
    }
    for name, mask in masks.items()
}
pd.DataFrame(rows).T

# %% [markdown]
# The smaller the region, the less the cross entropy hears of it; of Dice each has more than half.
# Against that, a very small region makes "the training unstable", and where there is none at all
# Dice has nothing to say. For a batch of four slices, one with tumour, and a *perfect* prediction:

# %%
batch = np.zeros((4, *annotated.shape, 1), "float32")
batch[0, :, :, 0] = masks["WT"]
for per in losses.DICE_SUMS:
    value = float(np.mean(losses.dice_loss(batch, batch, per=per)))
    print(f"Dice loss, sums over the {per}: {value:.2f}")

# %% [markdown]
# Slice by slice the three empty ones cost 1 each, whatever is predicted, so the mean is 3/4. The
# sums of equation 9 run over the $N$ examples; they are taken over the whole batch here, so that
# slices without tumour teach what is no tumour. A batch without any enhancing tumour still costs
# 1 for that output: the loss of a good network does not come down to 0.
#
# ## 3. The learning rate
#
# Adam at 1e-4, and "the algorithm of learning rate decay is like as (24)". That is Myronenko's: in
# epoch $e$ of $E$,
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
# BraTS 2018 to 2020: registered, skull-stripped volumes of 240x240x155 voxels of 1 mm, four
# modalities, and a label map. The years repeat each other (all of 2019 lies inside 2020), so cases
# with equal voxels are used once; the ablations use 2020 alone.
#
# Real patients cannot be shipped with a notebook. The synthetic ones of `keras_medseg.phantoms`
# come in the same files with the same codes: contrasts of each modality, a bias field, noise,
# scanner-dependent scales, and bright distractors that are no tumour. Below, 24 of them at half the
# resolution are written to disk in the files of BraTS 2020, found again, decoded once into a store,
# and split **by patient**. (Their headers say 1 mm all the same: a millimetre below is a voxel.)

# %%
short = recipe.override(
    RECIPE,
    [
        "data.window=(72, 88, 77)",
        "data.slice_step=4",
        "model.overrides.filters=16",
        "train.batch_size=4",
        "train.epochs=8",
        "train.learning_rate=1e-3",
    ],
)
phantom.write_brats(work / "phantom", cases=24, layout="BraTS2020", shape=(120, 120, 77))
data = steps.load_data(work / "phantom", work / "store", short)
print(f"{data.name}: {len(data.training)} to train on, {len(data.held_out)} held out")

# %% [markdown]
# ### Min-max, volume by volume
#
# "We calculated the maximum and minimum pixel intensity of the 3D brain data of each brain tumor
# patient in a single modality", and every modality is brought to [0, 1]. One slice of a patient as
# the network gets it, and its labels in the colours that all of this package's figures use. The
# three auxiliary outputs learn one colour each, the main output all of them together.

# %%
brain = patient.image.any(axis=-1)
rows, columns = (
    slice(max(edge.min() - 4, 0), edge.max() + 5) for edge in np.nonzero(brain[:, :, z])
)
scaled = patient.image / patient.image.max(axis=(0, 1, 2))


def draw(panel, picture, title, **style):
    """Anterior on top, the patient's right on the left."""
    drawn = panel.imshow(picture[rows, columns].T, **{"cmap": "gray", **style})
    panel.set(title=title, xticks=[], yticks=[])
    return drawn


def paint(panel, labels):
    for code, colour in figures.LABEL_COLOURS.items():
        mask = (labels == code)[rows, columns].T
        colours = plt.matplotlib.colors.ListedColormap([colour])
        panel.imshow(np.ma.masked_where(~mask, mask), cmap=colours)
        panel.plot([], [], "s", color=colour, label=figures.LABEL_NAMES[code])


figure, panels = plt.subplots(1, 5, figsize=(12, 3.3), layout="compressed")
for channel, name in enumerate(brats.MODALITIES):
    shown = draw(
        panels[channel], scaled[:, :, z, channel], figures.MODALITY_NAMES[name], vmin=0, vmax=1
    )
figure.colorbar(shown, ax=panels[:4], shrink=0.6, location="left")
flair = scaled[:, :, z, brats.MODALITIES.index("flair")]
draw(panels[4], flair, "labels", vmax=flair.max())
paint(panels[4], patient.labels[:, :, z])
_ = figure.legend(loc="outside lower center", ncols=3, frameon=False)

# %% [markdown]
# T1ce is dark: its brightest voxel is a vessel, and that one voxel sets the scale of the whole
# volume. Over the 24 patients, the median of the brain's voxels after min-max:

# %%
medians = {name: [] for name in brats.MODALITIES}
for case in data.store.cases.values():
    image = case.full_image()
    for channel, name in enumerate(brats.MODALITIES):
        brain_voxels = image[..., channel][image[..., channel] > 0]
        medians[name].append(np.median(brain_voxels) / brain_voxels.max())
table = pd.DataFrame(medians).rename(columns=figures.MODALITY_NAMES)
table.agg(["min", "median", "max"])

# %% [markdown]
# ### The window
#
# "We crop each image to a size of 144x176 to preserve as much brain region information as
# possible", and put predictions back before they are scored. Brains are longer from front to back,
# so 176 is y. What falls outside counts as missed; a perfect network could reach a Dice of
# $2 |T_\mathrm{in}| / (|T_\mathrm{in}| + |T|)$. Of the 24 patients, at their resolution:

# %%
rows_of_table = {}
for name, case in data.store.cases.items():
    inside = volumes.window(case.full_shape, short.data.window)
    cut = {"brain": case.full_image().any(axis=-1), "tumour": case.full_labels() > 0}
    share = {what: mask[inside].sum() / mask.sum() for what, mask in cut.items()}
    rows_of_table[name] = {f"{what} outside, %": 100 * (1 - s) for what, s in share.items()}
    rows_of_table[name]["best Dice, %"] = 200 * share["tumour"] / (share["tumour"] + 1)
pd.DataFrame(rows_of_table).T.agg(["min", "median", "max"])

# %% [markdown]
# ## 5. A short training
#
# The recipe is plain data, so what is shortened can be listed. At half the resolution the paper's
# window of 144x176 voxels is 72x88.

# %%
changed = recipe.differences(short, RECIPE)
pd.DataFrame(changed, index=["here", "paper"]).T[["paper", "here"]].map(str)

# %%
run_folder = work / "run"
variants = {
    name: recipe.override(short, EXPERIMENT.profiles["paper"].variants[name])
    for name in ("before_postprocessing", "mtds")
}
steps.claim(run_folder, short, data, variants)
steps.train_variant("mtds", short, data, run_folder)

# %%
log = pd.read_csv(steps.training_folder(run_folder, "mtds", ("WT",)) / "log.csv")
off = np.abs(log["learning_rate"] / myronenko(short.train) - 1).max()
print(f"largest departure of the logged learning rate from the formula: {off:.1e}")
curves = figures.learning_curves({"mtds-WT": log})
curves.set_figwidth(6)
curves

# %% [markdown]
# Every number that follows belongs to *this* recipe and to synthetic patients. The loss is the sum
# over four outputs of two terms each. The validation measures it on the averaged statistics of the
# batch normalisation, which with TensorFlow's momentum of 0.99 lag a hundred steps behind.
#
# ### What the gates and SE do
#
# Left, the gates of the four APR modules on a held-out slice, each in its own range. A gate looks
# at one pixel of its level and multiplies all channels there; dark places are those that the next
# level is to see less of.

# %%
trained = steps.load_network(run_folder, "mtds", ("WT",), auxiliary=True)
held_out = steps.batches(short, data.store, data.held_out, ("WT",), training=False)
batches = [held_out.batch(0, step) for step in range(held_out.steps_per_epoch)]
images, targets = (np.concatenate(parts) for parts in zip(*batches))
chosen = int(targets[..., 1].sum(axis=(1, 2)).argmax())
one = images[chosen : chosen + 1]


def probe(name):
    return keras.Model(trained.input, trained.get_layer(name).output)(one, training=False).numpy()


rows = columns = slice(None)
figure, panels = plt.subplots(1, 5, figsize=(12, 3.1), layout="compressed")
draw(panels[0], one[0, :, :, 0], "FLAIR and whole tumour")
panels[0].contour(targets[chosen, :, :, 0].T, levels=[0.5], colors="#E69F00", linewidths=1)
for level, panel in enumerate(panels[1:], 1):
    gate = probe(f"APR{level}_gate_sigmoid")[0, :, :, 0]
    title = f"APR{level}, {gate.shape[0]}*{gate.shape[1]}:\n{gate.min():.2f} to {gate.max():.2f}"
    draw(panel, gate, title, cmap="viridis")

# %% [markdown]
# One would expect bright tumours on dark brains ("to suppress the feature response of irrelevant
# background regions"). In this run it is rather the other way round on levels 2 and 3, and the
# tumour is found all the same: what follows a gate can read a low value as well as a high one. Few
# steps on synthetic patients settle nothing about the paper; they do show what to look at.
#
# SE weights channels, the same for all pixels of a slice. "The random change of channel weight
# helps the network": in a training step, Dropout sets each weight to 0 with a probability of 0.2
# and divides the others by 0.8. The last SE module on the same slice:

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
# Each held-out patient is predicted slice by slice, pasted into the full grid, written as NIfTI
# with the affine of the input, and scored there, once as it is and once after the cleaning of
# section 7. Here is the median patient before it: what the main output (WT) and the auxiliary ones
# answer on one slice, below what they were trained for.

# %%
scores = pd.concat(
    [
        steps.score_variant(name, variant, data, run_folder, trained_as="mtds")
        for name, variant in variants.items()
    ],
    ignore_index=True,
)
(picture,) = paper_figures.supervision_figures(run_folder, data, short)
Image(picture.path.read_bytes(), width=900)

# %% [markdown]
# The head for enhancing tumour is drawn finely and is unsure: it answers to the bright rim, and
# faintly to vessels elsewhere, which on 5x5 pixels look alike. The head for edema sits two levels
# deeper and paints blocks of four pixels. Neither has to be good: they are there to shape the
# encoder, and nothing of them is in the result.
#
# Over all held-out patients, the Dice of each output at a threshold of 0.5, whole volumes (empty
# where a patient has no such label):

# %%
joined = keras.Model(trained.input, keras.layers.Concatenate()(trained.outputs))
probabilities, rows_of_table = {}, {}
for name in data.held_out:
    case = data.store.cases[name]
    predicted = predict.predict_window(
        joined,
        case,
        window=short.data.window,
        normalisation=short.data.normalisation,
        batch_size=short.train.batch_size,
    )
    probabilities[name] = volumes.paste(predicted, case.full_shape)
    found, labels = probabilities[name] > 0.5, case.full_labels()
    rows_of_table[name] = {}
    for k, output in enumerate(OUTPUTS):
        truth = np.isin(labels, brats.TARGETS[output])
        both = 2 * (truth & found[..., k]).sum()
        dice = both / (truth.sum() + found[..., k].sum()) if truth.any() else np.nan
        rows_of_table[name][output] = dice
by_output = pd.DataFrame(rows_of_table).T
by_output.map(lambda dice: "" if np.isnan(dice) else f"{dice:.2f}")

# %% [markdown]
# One patient in the label colours: annotation, and for every voxel the auxiliary output that is
# most certain there, if any is above 0.5.

# %%
shown_above = figures.pick_cases(scores, "mtds")["median"]
name = by_output["ET"].drop(shown_above).idxmax()
case = data.store.cases[name]
codes = np.array([brats.TARGETS[output][0] for output in OUTPUTS[1:]], np.uint8)
auxiliary = probabilities[name][..., 1:]
parts = np.where(auxiliary.max(axis=-1) > 0.5, codes[auxiliary.argmax(axis=-1)], 0)
figures.case_overlay(
    case.full_image(),
    case.full_labels(),
    parts.astype(np.uint8),
    title=f"{name}: the auxiliary outputs alone",
    dice=dict(by_output.loc[name, list(OUTPUTS[1:])]),
    spacing_mm=case.spacing_mm,
)

# %% [markdown]
# ## 7. Cleaning in three dimensions
#
# "We concatenate all the 2D segmentation results of each patient into 3D voxels ... When the volume
# of other predicted tumors is less than one-tenth of the baseline", the largest one, "we determine
# that these predicted tumors are false positives." The patient from whom this takes most:

# %%
masks_of = {}
for name in data.held_out:
    case = data.store.cases[name]
    paths = [steps.prediction(run_folder, short, variant, name) for variant in variants]
    before, after = (brats.Brats().read_labels(path, case) > 0 for path in paths)
    masks_of[name] = before, after, case.full_labels() > 0
name = max(masks_of, key=lambda name: masks_of[name][0].sum() - masks_of[name][1].sum())
before, after, truth = masks_of[name]

components, count = ndimage.label(before, structure=np.ones((3, 3, 3)))
voxels = np.bincount(components.ravel())[1:]
of_tumour = np.bincount(components[truth], minlength=count + 1)[1:]
table = pd.DataFrame({"voxels": voxels, "of them tumour": of_tumour})
table["% of the largest"] = 100 * table["voxels"] / voxels.max()
table["verdict"] = np.where(voxels >= 0.1 * voxels.max(), "kept", "dropped")
print(f"{name}: {count} components, the largest of them:")
table.sort_values("voxels", ascending=False).head(6).reset_index(drop=True)

# %%
DIRECTIONS = {
    "from above": (2, "x", "y"),
    "from the front": (1, "x", "z"),
    "from the side": (0, "y", "z"),
}
COLOURS = {"kept": "#0072B2", "dropped": "#E69F00"}
brain = data.store.cases[name].full_image().any(axis=-1)

figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), layout="compressed")
for panel, (title, (axis, across, up)) in zip(panels, DIRECTIONS.items()):
    origin = "upper" if up == "y" else "lower"
    panel.imshow(brain.any(axis=axis).T, cmap="gray_r", vmax=8, origin=origin)
    for mask, colour in zip((after, before & ~after), COLOURS.values()):
        flat = mask.any(axis=axis).T
        colours = plt.matplotlib.colors.ListedColormap([colour])
        panel.imshow(np.ma.masked_where(~flat, flat), cmap=colours, origin=origin)
    panel.contour(truth.any(axis=axis).T, levels=[0.5], colors="black", linewidths=1)
    panel.set(title=title, xlabel=f"{across} (voxels)", ylabel=f"{up} (voxels)")
handles = [
    plt.Rectangle((0, 0), 1, 1, color=colour, label=what) for what, colour in COLOURS.items()
]
handles.append(plt.Line2D([], [], color="black", lw=1, label="annotation"))
_ = figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)

# %% [markdown]
# Why three dimensions, when the network works slice by slice? The same rule applied to each slice
# alone would compare an island with what else lies in *its* slice. Where the tumour does not reach,
# the island is the largest there, and stays; where the tumour begins or ends, small parts of it go.


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
        **{f"tumour lost {how}": (before & ~mask & truth).sum() for how, mask in cleaned.items()},
    }
pd.DataFrame(rows_of_table).T

# %% [markdown]
# Scores before and after, for every held-out patient:

# %% tags=["scores"]
columns_of_table = ["dice", "sensitivity", "specificity", "hd95_mm"]
scores.set_index(["variant", "case"])[columns_of_table].map("{:.3f}".format)

# %% [markdown]
# Most of it is in the Hausdorff distance, which an island far away spoils more than the overlap.
# Where one component is all there is, nothing changes; now and then a true crumb goes; and a false
# component above a tenth would stay.
#
# ## 8. The ablations, and what is left of the tables
#
# A variant is a list of overrides of the recipe, nothing else. These are all that the paper
# describes, and the rows of its tables that they answer:

# %%
answers = {}
for spec in EXPERIMENT.tables:
    for row in spec.rows:
        if row.measured:
            answers.setdefault(row.measured, []).append(f"{spec.id}: {row.label}")
lines = ["| variant | overrides | rows |", "|:--|:--|:--|"]
for name, changes in EXPERIMENT.profiles["paper"].variants.items():
    overrides = "<br>".join(f"`{change}`" for change in changes) or "none"
    lines.append(f"| {name.replace('_', ' ')} | {overrides} | {'<br>'.join(answers[name])} |")
Markdown("\n".join(lines))

# %% [markdown]
# Not one value of the paper's tables survives in the text. Lost cells are shown as lost; the report
# of a run sets what was measured beside what the running text still says. For the run above:

# %%
published = report.read_published("experiments/mtds2021/published.csv")
cells = pd.concat([report.build_table(spec, published, scores) for spec in EXPERIMENT.tables])
cells["paper"] = cells["note"].str.partition(".")[0].str.lower()
key = ["table", "row", "variant", "paper", "status"]
wide = cells.pivot(index=key, columns="metric", values="measured")[columns_of_table]
wide = wide.reindex(cells.set_index(key).index.unique()).reset_index(["paper", "status"])
wide.map(lambda cell: cell if isinstance(cell, str) else "" if np.isnan(cell) else f"{cell:.3f}")

# %% [markdown]
# And what the running text says of the lost values:

# %%
lost = cells[cells["note"].str.startswith("Lost. ")].drop_duplicates(["table", "metric"])
lost = lost.assign(name=lost["metric"].map(figures.METRIC_NAMES))
said = lost.groupby(["table", "note"], sort=False)["name"].agg(", ".join)
lines = [
    f"* {table}, {metrics}: {note.removeprefix('Lost. ')}"
    for (table, note), metrics in said.items()
]
Markdown("\n".join(lines))

# %% [markdown]
# These sentences are what a run on BraTS 2020 with the paper's recipe is held against: its mean
# Dice must lie within the range of Table 5, or it exits with 1, and the orders are tested by the
# Dice of both variants for every patient. The numbers above cannot be compared with any of it, and
# the report of every run says why, in these words:

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
    logs={"mtds-WT": log},
)
reasons = report.why_not_comparable(finished, EXPERIMENT.paper)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %%
temporary.cleanup()

# %% [markdown]
# ## 9. With real data
#
# BraTS is given out by the challenge's organisers after registration. Point the experiment at the
# folder, whatever lies between it and the cases; several years may lie side by side:
#
# ```
# keras-medseg check /path/to/MICCAI_BraTS2020_TrainingData      every problem of every case
# make reproduce-mtds2021 DATA=/path/to/MICCAI_BraTS2020_TrainingData
# ```
#
# That is the paper's recipe: seven trainings of 50 epochs, for which one wants a GPU. It goes on
# where it was interrupted, and ends with `report.html`; `python -m experiments mtds2021 --compare`
# trains the rivals of Table 6 instead. The organisers' portal, which scored the paper, takes what
# this writes for the 125 validation cases:
#
# ```
# keras-medseg predict RUN /path/to/MICCAI_BraTS2020_ValidationData submission
# ```
#
# Where to go from here: put the heads on the decoder (`SET="model.overrides.supervision=decoder"`),
# give the auxiliary outputs less weight
# (`SET="train.loss_options.output_weights=(1.0,0.3,0.3,0.3)"`), or use the parts in your own code:
# `keras_medseg.build("mtds_r2unet", input_shape=(None, None, 4))` is a Keras model with four
# outputs, and `keras_medseg.losses.get("cross_entropy_and_dice")` a Keras loss.
