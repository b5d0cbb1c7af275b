# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An integrated attention CNN for polyps and skin lesions
#
# After a paper in Chinese. Its title, authors and journal are lost in the text that this works
# from; its English caption calls the network "Integrated attention convolutional neural network".
# The paper has one network and one recipe for two public data sets: dermoscopic images (ISIC 2018)
# and frames of colonoscopies (CVC-ClinicDB). Three modules are its own: SFA for scales, SA for
# positions, and CA for channels.
#
# This notebook analyzes the three modules, with some surprises, then the loss, the tables and the
# split. It trains for a minute and ends with masks and attention maps. It calls the public
# interface of `keras_medseg` and trains in the same way as the command line does. It needs neither
# data nor an internet connection: the frames are synthetic.
#
# The paper leaves some points open. `experiments/iacnn/ledger.toml` lists how each of them was
# decided.

# %%
import contextlib
import inspect
import io
import logging
import os
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if not Path("experiments").is_dir():
    os.chdir("..")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display

import keras_medseg
from experiments.gradients import gradients_at_start
from experiments.iacnn.recipe import EXPERIMENTS, RECIPE
from keras_medseg import frameworks, losses, recipe
from keras_medseg.data import cases, splits
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.models import integrated_attention_cnn as iacnn
from keras_medseg.phantoms.endoscopy import endoscopy_case
from keras_medseg.reporting import tables
from keras_medseg.reporting.figures import charts
from keras_medseg.reporting.report import RunData, why_not_comparable
from keras_medseg.runs import experiment, steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks import task_of

logging.getLogger("tensorflow").setLevel("ERROR")
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.4f}".format
pd.options.display.width = 100
pd.options.display.max_colwidth = 80
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)
PAPER = EXPERIMENTS["cvc"]

# %% [markdown]
# ## 1. The network
#
# The text gives five convolution stages with down-sampling, five deconvolution stages that restore
# the size of the image, skips, and the labels of Figure 1 between encoder and decoder, "SFA SA+CA
# SA+CA SA+CA". Five deconvolutions undo five halvings, one more than a U-Net has. The text does not
# give the widths, the layers of a stage, or the places of the modules. Here the network has 16 to
# 256 channels, as in CA-Net, the most similar network; the stages are those of the U-Net that it is
# compared with; SFA is at the bottom; SA, then CA, are on the three deeper skips.

# %%
network = keras_medseg.build("integrated_attention_cnn")


def size(tensor):
    return "*".join(map(str, tensor.shape[1:]))


def parameters(module):
    layers = [layer for layer in network.layers if layer.name.split("_")[0] == module]
    return sum(layer.count_params() for layer in layers)


rows = {
    f"stage {stage}": {
        "map": size(network.get_layer(f"Encode{stage}_conv2_relu").output),
        "encoder": parameters(f"Encode{stage}"),
        "SA": "0" if stage in iacnn.ATTENDED else "",
        "CA": f"{parameters(f'CA{stage}'):,}" if stage in iacnn.ATTENDED else "",
        "deconvolution": parameters(f"Up{stage}"),
        "decoder": parameters(f"Decode{stage}"),
    }
    for stage in range(1, iacnn.STAGES + 1)
}
sfa = network.get_layer("SFA")
print(f"SFA, on the map of {size(sfa.output)}: {parameters('SFA'):,} parameters")
print(f"together: {network.count_params():,}")
table = pd.DataFrame(rows).T
table.assign(**{k: table[k].map("{:,}".format) for k in ("encoder", "deconvolution", "decoder")})


# %% [markdown]
# ## 2. The modules
#
# ### SFA: scale features
#
# $$B_1 = C_{3\times3}(C_{3\times3}(C_{1\times1}(X))), \quad B_2 = C_{3\times3}(C_{1\times1}(X)),
# \quad B_3 = C_{1\times1}(X), \quad \mathrm{out} = B_1 + B_2 + B_3$$
#
# This attention module has no attention weights and, as printed, nothing between its convolutions.
# A sum of chains of convolutions is linear, so away from the border SFA is *one* 5x5 convolution.
# The next cell measures that convolution by the responses of SFA to single bright pixels, and
# compares the two on noise:


# %%
def source(*functions):
    text = "\n\n".join(inspect.getsource(function) for function in functions)
    return Markdown(f"```python\n{text}```")


source(iacnn.scale_features)

# %%
channels, side = 6, 13
image = keras.Input((side, side, channels))
small = keras.Model(
    image, iacnn.scale_features(image, framework=frameworks.get("pytorch"), name="SFA")
)
pixels = np.zeros((channels, side, side, channels), "float32")
pixels[np.arange(channels), side // 2, side // 2, np.arange(channels)] = 1
bias = small(np.zeros((1, side, side, channels), "float32")).numpy()
responses = small(pixels).numpy() - bias
reach = np.argwhere(np.abs(responses).max(axis=(0, 3)) > 1e-7)
low, high = reach.min(axis=0), reach.max(axis=0) + 1
kernel = responses[:, low[0] : high[0], low[1] : high[1]][:, ::-1, ::-1].transpose(1, 2, 0, 3)
noise = np.random.default_rng(0).normal(size=(1, side, side, channels)).astype("float32")
one = keras.ops.conv(noise, np.ascontiguousarray(kernel), padding="same").numpy() + bias
inside = np.s_[:, 2:-2, 2:-2]
print(f"kernel of {kernel.shape[0]}x{kernel.shape[1]}")
print(f"largest difference: {np.abs(one - small(noise).numpy())[inside].max():.1e}")

# %% [markdown]
# With the network's 256 channels, SFA has more parameters than the single convolution that it is
# equivalent to:

# %%
width = sfa.output.shape[-1]
print(f"SFA: {parameters('SFA'):,} parameters; one 5x5 convolution: {width * width * 25 + width:,}")

# %% [markdown]
# ### SA: spatial attention
#
# $$\alpha = \sigma(x\,x^T), \qquad \mathrm{out} = x + x\,\alpha$$
#
# SA has no parameters. What are the rows of $x$? "Spatial" and "in a global view" suggest pixels,
# so that each pixel is compared with every other. A weight for "every feature map" suggests
# channels. All readings can be built. The matrix of the first one grows with the fourth power of
# the map's side; its size in float32 for a batch of 16:

# %%
rows = {}
for stage in (5, 4, 3, 2, 1):
    height, width, depth = network.get_layer(f"Encode{stage}_conv2_relu").output.shape[1:]
    entries = {"positions": (height * width) ** 2, "channels": depth**2, "rows": depth * height**2}
    rows[f"{height}*{width}*{depth}"] = {
        reading: f"{16 * 4 * count / 1e9:.3f} GB" for reading, count in entries.items()
    }
pd.DataFrame(rows).T

# %% [markdown]
# So the default compares pixels on the two deepest stages (here 32x32 and 16x16), and channels on
# the third, whatever the size of the images.
#
# As printed, the sums are not divided by the number of terms. This has consequences that no figure
# of the paper would show. The maps that SA gets come out of a ReLU: no value is negative, so no
# entry of $x x^T$ is negative, and no $\alpha$ is below 1/2. So at least half the *sum of all
# pixels* is added to every pixel. For random maps of the sizes of the skips, as printed and divided
# by the number of terms:

# %%
rng = np.random.default_rng(0)
rows = {}
for stage in (3, 4, 5):
    shape = network.get_layer(f"Encode{stage}_conv2_relu").output.shape[1:]
    x = np.maximum(rng.normal(size=(1, *shape)), 0).astype("float32")
    for scale in iacnn.SCALES:
        probe = keras.Input(shape)
        options = {"reading": iacnn.BY_STAGE[stage], "scale": scale, "name": "SA"}
        model = keras.Model(probe, iacnn.spatial_attention(probe, **options))
        alpha = keras.Model(probe, model.get_layer("SA_sigmoid").output)(x).numpy()
        added = model(x).numpy() - x
        rows["*".join(map(str, shape)), scale] = {
            "smallest alpha": f"{alpha.min():.4f}",
            "added / x": f"{added.mean() / x.mean():.1f}",
            "spread over pixels / mean": f"{(added.std((1, 2)) / added.mean((1, 2))).mean():.2e}",
        }
pd.DataFrame(rows).T

# %% [markdown]
# Where pixels are compared, the printed module adds hundreds of times its input, and to every pixel
# nearly the same value: one number per channel and image, without information about *positions*,
# beside which the map itself is small.
#
# This has a price elsewhere. What SA gives is concatenated with what comes up from the level below,
# and the batch norm behind the next convolution divides both by the spread of the larger part. So
# what comes from below is scaled down at each of the three attended stages, and with it the
# gradients of everything that lies there. The paper's Adam has an L2 term, $10^{-5} w$, inside the
# gradient. Where this is the larger part, Adam normalizes it like any other gradient and moves the
# weight to 0 at the full learning rate. The next cell compares the two before the first step, on
# two synthetic frames of 128x128 pixels; `experiments/iacnn/results/arms` has the same for 256x256.

# %%
drawn = [endoscopy_case(0, index, (128, 128)) for index in (0, 40)]
x = np.stack([image for image, _ in drawn]) / np.float32(255)
x = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
y = np.float32(np.stack([labels for _, labels in drawn])[..., None] > 0)
rows = {}
for scale in iacnn.SCALES:
    scaled = {"data.size": (128, 128), "model.options.spatial_scale": scale}
    starts = gradients_at_start(recipe.override(RECIPE, scaled), x, y)
    for layer in ("SFA_B3_conv1", "Up5", "Decode5_conv1", "Decode1_conv1"):
        rows[scale, layer] = {
            "median |gradient|": f"{starts[layer].median:.1e}",
            "median L2 term": f"{starts[layer].median_decay(1e-5):.1e}",
        }
pd.DataFrame(rows).T

# %% [markdown]
# As printed, the network loses its lowest level under the printed optimizer: so it was in every
# training of ours that was looked at. That is a finding about the equations. Non-local networks
# divide by the number of terms, and so does the recipe here (`spatial_scale="mean"`), which is
# a departure from equation (6) and listed as one. The printed form is `spatial_scale="none"`.
#
# ### CA: channel attention
#
# $$\beta = \sigma(\mathrm{MLP}(P_{max}(X),\, P_{avg}(X))), \qquad \mathrm{out} = X + X\beta$$
#
# This is CBAM's channel gate, except for the comma. The labels of Figure 4 have two MLPs and one
# sigmoid, so the comma is read as a sum. Because $X$ is added, the weights lie between 1 and 2: no
# channel can be switched off, and "suppressing irrelevant channels" means half the weight of the
# best channel.

# %%
source(iacnn.channel_attention)

# %% [markdown]
# ### Switches
#
# Every open point is an argument of `build`:

# %%
SWITCHES = {
    "default": {},
    "SFA on every stage": {"sfa_place": "stages"},
    "without SFA": {"sfa_place": "none"},
    "CA after the concatenation": {"attention_place": "split"},
    "SA and CA after it": {"attention_place": "joined"},
    "without SA and CA": {"attention_place": "none"},
    "SA compares channels only": {"spatial_reading": "channels"},
    "SA compares rows": {"spatial_reading": "rows"},
    "SA as printed": {"spatial_scale": "none"},
    "SA without CA": {"attention_place": "sa"},
    "CA without SA": {"attention_place": "ca"},
    "64 to 1024 channels": {"filters": 64},
}
rows = {
    name: {
        "parameters": keras_medseg.build("integrated_attention_cnn", **options).count_params(),
        "arguments of build": ", ".join(f"{k}={v!r}" for k, v in options.items()),
    }
    for name, options in SWITCHES.items()
}
table = pd.DataFrame(rows).T
table.assign(parameters=table["parameters"].map("{:,}".format))

# %% [markdown]
# ### What contradicts itself, and what is not said
#
# From the ledger: every point where the text can be read in several ways or says nothing, and every
# point where this reproduction departs from it.

# %%
ledger = tomllib.loads(Path("experiments/iacnn/ledger.toml").read_text())["entry"]
lines = ["| where | the paper | here |", "|:--|:--|:--|"]
for entry in ledger:
    if entry["status"] in ("departs", "chosen"):
        lines.append(f"| {entry['where']} | {entry['says']} | {entry['ours']} |")
Markdown("\n".join(lines))

# %% [markdown]
# ## 3. Loss and metrics
#
# $$L = -\frac1n\sum_i \big[y_i \ln p_i + (1 - y_i) \ln (1 - p_i)\big] +
# 1 - \frac{2\sum_i p_i y_i}{\sum_i (p_i + y_i) + \lambda}$$
#
# $\lambda$ is in the denominator alone. So the loss of an image without tumor, correctly predicted,
# is 1 if the sums run over single images; it is 0 if they run over a batch that contains a tumor.
# The recipe sums over the batch. For four images, one of them with a tumor, all predicted
# perfectly:

# %%
batch = np.zeros((4, 32, 32, 1), "float32")
batch[0, 8:20, 8:20] = 1
for per in losses.DICE_SUMS:
    value = losses.dice_loss(batch, batch, squared=False, per=per, smooth=1e-7)
    print(f"sums over the {per}: Dice loss {float(np.mean(value)):.2f}")

# %% [markdown]
# The tables give Dice and IoU in percent. If they were pooled over all pixels, one would follow
# from the other: Dice = 2 IoU / (1 + IoU). In all twelve rows the printed Dice is lower than this,
# as it is for means over images. So images are scored one by one here.

# %%
published = tables.read_published("experiments/iacnn/published.csv")
wide = published.pivot(index=["table", "row"], columns="metric", values="value")
wide = wide.reindex(published.set_index(["table", "row"]).index.unique())
wide = wide[["dice", "iou", "precision", "sensitivity"]]
iou = wide["iou"] / 100
wide.assign(pooled=100 * 2 * iou / (1 + iou)).map("{:.2f}".format)

# %% [markdown]
# ## 4. The data and the split
#
# CVC-ClinicDB has 612 frames of 29 video sequences; ISIC 2018 has 2,594 images. The paper does not
# say which images were used for testing. For frames of videos this matters. Below are two sequences
# of the synthetic frames, written in CVC-ClinicDB's layout with its table of sequences.
#
# What this notebook trains is the quick profile of the paper's experiment with changes of its own,
# on 120 synthetic frames.

# %%
changes = {
    "data.size": (96, 96),
    "model.options.filters": 8,
    "train.batch_size": 8,
    "train.epochs": 16,
    "train.learning_rate": 2e-3,
    "train.schedule": "polynomial",
    "train.schedule_options": {"power": 0.9},
}
shortened = replace(
    PAPER,
    profiles={"notebook": replace(PAPER.profiles["quick"], changes=changes)},
    phantom=replace(PAPER.phantom, cases=120, size=(144, 192)),
)
short = recipe.override(RECIPE, changes)
folder = experiment.make_phantom(shortened, work)
cohort = steps.load_cohort(folder, experiment.store_folder(work, folder, short), task_of(short))
print(f"{cohort.name}: {len(cohort.training)} training, {len(cohort.validation)} validation cases")

# %%
sequences = {}
for name, case in cohort.store.cases.items():
    sequences.setdefault(case.group, []).append(name)
figure, panels = plt.subplots(2, 4, figsize=(8, 4.2), layout="compressed")
for line, (group, names) in zip(panels, list(sequences.items())[:2]):
    for panel, name in zip(line, sorted(names, key=int)):
        case = cohort.store.cases[name]
        panel.imshow(case.pixels)
        panel.contour(case.mask, levels=[0.5], colors="#56B4E9", linewidths=1)
        panel.set(title=f"frame {name}", xticks=[], yticks=[])
    line[0].set_ylabel(group.replace("_", " "))

# %% [markdown]
# A validation frame whose neighbor in the video is a training frame is not an unseen image. There
# are two ways to split: by sequence ("group") and by single frame ("random"). For each validation
# frame of either split, the next cell finds the most similar training frame (by mean absolute
# difference) and counts those of the same sequence:

# %%
frames = [cases.Case(name, "", (), None, c.group) for name, c in cohort.store.cases.items()]
flat = {name: c.full_image().astype("float32").ravel() for name, c in cohort.store.cases.items()}
for way in splits.WAYS:
    training, validation = splits.split_by(frames, 0.2, RECIPE.train.seed, way)
    known = 0
    for frame in validation:
        nearest = min(training, key=lambda t: np.abs(flat[t.id] - flat[frame.id]).mean())
        known += nearest.group == frame.group
    print(f"{way:6}: the same sequence for {known} of {len(validation)} validation frames")

# %% [markdown]
# The recipe splits by sequence. For the real data set, this split is the published list, and
# `data.split=random` gives the other one. If the real frames are split singly, how many validation
# frames come from a sequence that has training frames too?

# %%
listed = pd.read_csv("experiments/iacnn/splits/cvc.csv", dtype=str)
print(listed.groupby("split").agg(frames=("case", "size"), sequences=("group", "nunique")))
frames = [cases.Case(row.case, "", (), None, row.group) for row in listed.itertuples()]
training, validation = splits.split_by(frames, 0.2, RECIPE.train.seed, "random")
trained_on = {frame.group for frame in training}
share = np.mean([frame.group in trained_on for frame in validation])
print(f"split singly: {share:.0%} of {len(validation)} frames")

# %% [markdown]
# ## 5. A short training
#
# The training has fewer pixels, half the widths, 16 epochs instead of 500, and a learning rate that
# starts twenty times higher and falls to 0. A recipe is plain data, so its differences from the
# paper's can be listed:

# %%
changed = recipe.differences(short, RECIPE)
pd.DataFrame(changed, index=["here", "paper"]).T[["paper", "here"]].map(str)

# %% [markdown]
# `experiment.run` is what the command line calls too: it trains, predicts the validation frames,
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
curves = charts.learning_curves(run.logs())
curves.set_figwidth(6)
curves

# %% [markdown]
# Scores of the validation frames, means over each sequence:

# %%
scores = run.scores()
METRICS = ["dice", "iou", "precision", "sensitivity"]
groups = {name: cohort.store.cases[name].group for name in cohort.validation}
by_sequence = scores.assign(sequence=scores["case"].map(groups)).groupby("sequence")[METRICS].mean()

# %% tags=["scores"]
by_sequence.map("{:.4f}".format)

# %% [markdown]
# The best, the median and the worst frame:

# %%
task = run.variant("iacnn").task
dice = scores.set_index("case")["dice"]
for which, name in pick_cases(scores, "iacnn").items():
    drawn, _ = task.overlay(
        run.prediction("iacnn", name),
        cohort.store.cases[name],
        title=f"{which}: frame {name}",
        dice={"tumour": dice[name]},
    )
    display(drawn)

# %% [markdown]
# ## 6. What the modules do
#
# The report's figure shows mean absolute values over the channels for the median frame: of the
# output of SFA, and of what SA and CA add to their input. Every panel has its own scale, whose ends
# stand above it.

# %%
Image(run.figure("attention").read_bytes(), width=760)

# %% [markdown]
# The next table gives, over all validation frames, what SA and CA add in multiples of their input:

# %%
trained = run.network("iacnn", ("tumour",))
batches = task.batches(cohort.store, cohort.validation, ("tumour",), training=False)
images = np.concatenate([batches.batch(0, step)[0] for step in range(batches.steps_per_epoch)])
rows = {}
for stage in iacnn.ATTENDED:
    adding = {module: trained.get_layer(f"{module}{stage}").input for module in ("SA", "CA")}
    weights = {module: trained.get_layer(f"{module}{stage}_sigmoid").output for module in adding}
    added_to, weighted = keras.Model(trained.input, [adding, weights])(images, training=False)
    for module in adding:
        x, added = (np.asarray(part, "float64") for part in added_to[module])
        alpha = np.asarray(weighted[module])
        rows[f"{module}{stage}, {size(adding[module][0])}"] = {
            "mean of the map": f"{x.mean():.2e}",
            "added / map": f"{added.mean() / x.mean():.2f}" if x.mean() else "",
            "weights from": f"{alpha.min():.3f}",
            "to": f"{alpha.max():.3f}",
            "spread over pixels / mean": f"{added.std((1, 2)).mean() / added.mean():.2f}",
        }
pd.DataFrame(rows).T

# %% [markdown]
# Divided by the number of terms, SA adds at most as much as a weighted mean of the map has, and CA,
# whose weights lie between 0 and 1, at most the map once more. CA's panel looks like SA's, because
# scaling channels moves nothing within the image.
#
# Earlier versions of the recipe had SA as printed, and the deepest level died where we looked: maps
# of 1e-5 and less, the same at every pixel, and SFA, a third of the parameters, without effect.
# `python -m experiments.iacnn.arms` trains both forms, the printed one also without the L2 term,
# and the network without SFA, SA or CA; `experiments/iacnn/results/arms` has what came out.
#
# ## 7. Beside the paper

# %%
[spec] = PAPER.tables
cells = tables.build_table(spec, published, scores)
key = ["row", "variant"]
wide = cells.pivot(index=key, columns="metric", values=["published", "measured"])
wide = wide.reindex(cells.set_index(key).index.unique())
wide.map(lambda value: "" if np.isnan(value) else f"{value:.2f}")

# %%
measured = RunData(run.recipe, run.provenance(), scores, run.logs())
reasons = why_not_comparable(measured, PAPER.reference)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %%
temporary.cleanup()

# %% [markdown]
# ## 8. With real data
#
# Both data sets are available from their owners, who ask for citation; CVC-ClinicDB is for research
# and education only. Name the folder as it was unpacked:
#
# ```
# keras-medseg check /path/to/CVC-ClinicDB
# make reproduce-iacnn DATASET=cvc DATA=/path/to/CVC-ClinicDB
# make reproduce-iacnn DATASET=isic DATA=/path/to/ISIC2018
# ```
#
# That is the paper's recipe, best done on a GPU. `PROFILE=cpu` (15 epochs, two networks)
# takes two cores about an hour, `PROFILE=cpu-long` (60 epochs) an hour and a half.
# `python -m experiments iacnn --dataset cvc --data ... --compare` trains the five other networks of
# the tables as well. `experiments/iacnn/results/` has the results and settings of
# all trainings on the real frames so far. The network alone is a Keras model:
# `keras_medseg.build("integrated_attention_cnn", input_shape=(256, 256, 3))`.
