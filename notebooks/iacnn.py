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
# A paper in Chinese whose title, authors and journal are lost in the text that this works from;
# its English caption calls the network "Integrated attention convolutional neural network". One
# network and one recipe for two public data sets: dermoscopic pictures (ISIC 2018) and frames of
# colonoscopies (CVC-ClinicDB). Three modules are its own: SFA for scales, SA for positions, CA for
# channels.
#
# This notebook takes the three modules apart, which holds some surprises, looks at loss, tables
# and split, trains for a minute, and ends with masks and attention maps. Everything it calls is
# the public interface of `keras_medseg`; it needs no data and no network: the frames are
# synthetic.
#
# What the paper leaves open, and how it was settled, stands in `experiments/iacnn/ledger.toml`.

# %%
import inspect
import os
import tempfile
import tomllib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if Path.cwd().name == "notebooks":
    os.chdir("..")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display

import keras_medseg
from experiments.iacnn.figures import tumour_figures
from experiments.iacnn.recipe import EXPERIMENT, RECIPE
from keras_medseg import frameworks, losses, recipe
from keras_medseg.data import cases, splits
from keras_medseg.data.formats import image_files
from keras_medseg.models import integrated_attention_cnn as iacnn
from keras_medseg.phantoms import images
from keras_medseg.reporting import figures, report
from keras_medseg.runs import steps

plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.4f}".format
pd.options.display.width = 100
pd.options.display.max_colwidth = 80
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)

# %% [markdown]
# ## 1. The network
#
# What the text fixes: five convolution stages with down-sampling, five deconvolution stages that
# bring the picture back to its size, skips, and the labels of Figure 1, "SFA SA+CA SA+CA SA+CA"
# between encoder and decoder. Five deconvolutions undo five halvings, one more than a U-Net has.
# Widths, the inside of a stage, and the places of the modules are not given. Here: 16 to 256
# channels as in CA-Net, the nearest relative; stages of the U-Net that it is compared with; SFA at
# the bottom; SA, then CA, on the three deeper skips.

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
# An attention module without any weight that attends, and, as printed, without anything between
# its convolutions. A sum of chains of convolutions is linear, so away from the border SFA is *one*
# 5x5 convolution. We read that convolution off its answers to single bright pixels, and try it on
# noise:


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
answers = small(pixels).numpy() - bias
reach = np.argwhere(np.abs(answers).max(axis=(0, 3)) > 1e-7)
low, high = reach.min(axis=0), reach.max(axis=0) + 1
kernel = answers[:, low[0] : high[0], low[1] : high[1]][:, ::-1, ::-1].transpose(1, 2, 0, 3)
noise = np.random.default_rng(0).normal(size=(1, side, side, channels)).astype("float32")
one = keras.ops.conv(noise, np.ascontiguousarray(kernel), padding="same").numpy() + bias
inside = np.s_[:, 2:-2, 2:-2]
print(f"kernel of {kernel.shape[0]}x{kernel.shape[1]}")
print(f"largest difference: {np.abs(one - small(noise).numpy())[inside].max():.1e}")

# %% [markdown]
# On the network's 256 channels it costs more than the single convolution that it is:

# %%
width = sfa.output.shape[-1]
print(f"SFA: {parameters('SFA'):,} parameters; one 5x5 convolution: {width * width * 25 + width:,}")

# %% [markdown]
# ### SA: spatial attention
#
# $$\alpha = \sigma(x\,x^T), \qquad \mathrm{out} = x + x\,\alpha$$
#
# Nothing is learned. What are the rows of $x$? "Spatial", "in a global view": pixels, so that each
# is compared with each. A weight for "every feature map": channels. All readings are built; the
# matrix of the first grows with the fourth power of the map's side, in float32 for a batch of 16:

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
# So the default compares pixels on the two deepest skips (32x32, 16x16), and channels on the
# third.
#
# As printed, nothing divides the sums, and that has consequences which no figure of the paper
# would show. The maps that SA sees come out of a ReLU: no value is negative, so no entry of $x
# x^T$ is, and no $\alpha$ is below 1/2. Every pixel then gets at least half the *sum of all
# pixels* added to it. Random maps of the size of the skips:

# %%
rng = np.random.default_rng(0)
rows = {}
for stage in (3, 4, 5):
    shape = network.get_layer(f"Encode{stage}_conv2_relu").output.shape[1:]
    x = np.maximum(rng.normal(size=(1, *shape)), 0).astype("float32")
    probe = keras.Input(shape)
    attended = iacnn.spatial_attention(probe, reading="by_size", name="SA")
    model = keras.Model(probe, attended)
    alpha = keras.Model(probe, model.get_layer("SA_sigmoid").output)(x).numpy()
    added = model(x).numpy() - x
    rows["*".join(map(str, shape))] = {
        "smallest alpha": f"{alpha.min():.4f}",
        "added / x": f"{added.mean() / x.mean():.0f}",
        "spread over pixels / mean": f"{(added.std((1, 2)) / added.mean((1, 2))).mean():.2e}",
    }
pd.DataFrame(rows).T

# %% [markdown]
# Where pixels are compared, the module adds hundreds of times its input, and to every pixel the
# same, to within rounding: a number per channel and picture, which tells nothing about *where*,
# and beside which the map itself is small. A trained network can make its maps small and sparse
# enough to escape; section 6 looks at what this one did. Dividing by the number of terms, as
# non-local networks do, would be another module than the one that is printed.
#
# ### CA: channel attention
#
# $$\beta = \sigma(\mathrm{MLP}(P_{max}(X),\, P_{avg}(X))), \qquad \mathrm{out} = X + X\beta$$
#
# CBAM's channel gate but for the comma. Figure 4's labels have an MLP on either side and one
# sigmoid, so the comma is read as a sum. With the added $X$ the weights go from 1 to 2: no channel
# can be switched off, "suppressing irrelevant channels" means half of what the best one gets.

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
# From the ledger: where more than one thing is said, or nothing.

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
# $\lambda$ stands in the denominator alone. So a picture without tumour, found to be without one,
# costs 1 if sums run over single pictures, and nothing where they run over a batch with a tumour
# in it. The recipe sums over the batch. Four pictures, one with a tumour, all answered rightly:

# %%
batch = np.zeros((4, 32, 32, 1), "float32")
batch[0, 8:20, 8:20] = 1
for per in losses.DICE_SUMS:
    value = losses.dice_loss(batch, batch, squared=False, per=per, smooth=1e-7)
    print(f"sums over the {per}: Dice loss {float(np.mean(value)):.2f}")

# %% [markdown]
# The tables give Dice and IoU in percent. Pooled over all pixels one would follow from the other,
# Dice = 2 IoU / (1 + IoU). In all twelve rows the printed Dice is lower, as means over pictures
# are; so pictures are scored one by one here.

# %%
published = report.read_published("experiments/iacnn/published.csv")
wide = published.pivot(index=["table", "row"], columns="metric", values="value")
wide = wide.reindex(published.set_index(["table", "row"]).index.unique())
wide = wide[["dice", "iou", "precision", "sensitivity"]]
iou = wide["iou"] / 100
wide.assign(pooled=100 * 2 * iou / (1 + iou)).map("{:.2f}".format)

# %% [markdown]
# ## 4. The data, and who is held out
#
# CVC-ClinicDB has 612 frames of 29 video sequences; ISIC 2018 has 2,594 pictures. The paper does
# not say who was tested on. In a video that matters: below are two sequences of the synthetic
# frames, written in CVC-ClinicDB's layout with its table of sequences.

# %%
short = recipe.override(
    RECIPE,
    [
        "data.size=(96, 96)",
        "model.overrides.filters=8",
        "train.batch_size=8",
        "train.epochs=16",
        "train.learning_rate=2e-3",
        "train.schedule=polynomial",
        "train.schedule_options={'power': 0.9}",
    ],
)
folder = work / "phantom"
_ = images.write_images(folder, cases=120, layout="CVC-ClinicDB", size=(144, 192))
data = steps.load_data(folder, work / "store", short)
short = steps.settle(short, data)
print(f"{data.name}: {len(data.training)} to train on, {len(data.held_out)} held out")

# %%
sequences = {}
for name, case in data.store.cases.items():
    sequences.setdefault(case.group, []).append(name)
figure, panels = plt.subplots(2, 4, figsize=(8, 4.2), layout="compressed")
for line, (group, names) in zip(panels, list(sequences.items())[:2]):
    for panel, name in zip(line, sorted(names, key=int)):
        case = data.store.cases[name]
        panel.imshow(case.full_image()[:, :, 0])
        panel.contour(case.full_labels()[:, :, 0], levels=[0.5], colors="#56B4E9", linewidths=1)
        panel.set(title=f"frame {name}", xticks=[], yticks=[])
    line[0].set_ylabel(group.replace("_", " "))

# %% [markdown]
# A frame that is held out while its neighbour is trained on is not an unseen picture. For every
# held out frame of two splits, is its most similar frame (mean absolute difference) among the
# training frames one of the same sequence?

# %%
everyone = [cases.Case(name, "", (), None, c.group) for name, c in data.store.cases.items()]
flat = {name: c.full_image().astype("float32").ravel() for name, c in data.store.cases.items()}
for way in splits.WAYS:
    training, held_out = splits.split_by(everyone, 0.2, RECIPE.train.seed, way)
    known = 0
    for frame in held_out:
        nearest = min(training, key=lambda t: np.abs(flat[t.id] - flat[frame.id]).mean())
        known += nearest.group == frame.group
    print(f"{way:6}: {known} of {len(held_out)} held-out frames have a twin in the training set")

# %% [markdown]
# The recipe holds out whole sequences. On the real set this is the published list, and the other
# split is one override away (`data.split=random`); drawn singly, how many of its held-out frames
# come from a sequence that is trained on as well?

# %%
listed = pd.read_csv("experiments/iacnn/splits/cvc.csv", dtype=str)
print(listed.groupby("split").agg(frames=("case", "size"), sequences=("group", "nunique")))
frames = [cases.Case(row.case, "", (), None, row.group) for row in listed.itertuples()]
training, held_out = splits.split_by(frames, 0.2, RECIPE.train.seed, "random")
shared = {frame.group for frame in training}
print(
    f"drawn singly: {np.mean([f.group in shared for f in held_out]):.0%} of {len(held_out)} frames"
)

# %% [markdown]
# ## 5. A short training
#
# Fewer pixels, half the widths, 16 epochs instead of 500, and a learning rate that starts twenty
# times higher and falls to 0. What is changed can be listed:

# %%
changed = recipe.differences(short, RECIPE)
table = pd.DataFrame(changed, index=["here", "paper"]).T[["paper", "here"]].map(str)
table.drop(["data.mean", "data.std"])

# %%
run_folder = work / "run"
steps.claim(run_folder, short, data, {"iacnn": short})
steps.train_variant("iacnn", short, data, run_folder)

# %%
log = pd.read_csv(steps.training_folder(run_folder, "iacnn", ("tumour",)) / "log.csv")
curves = figures.learning_curves({"iacnn-tumour": log})
curves.set_figwidth(6)
curves

# %% [markdown]
# Scores of the held-out frames, the mean of every sequence:

# %%
scores = steps.score_variant("iacnn", short, data, run_folder)
METRICS = ["dice", "iou", "precision", "sensitivity"]
groups = {name: data.store.cases[name].group for name in data.held_out}
by_sequence = scores.assign(sequence=scores["case"].map(groups)).groupby("sequence")[METRICS].mean()

# %% tags=["scores"]
by_sequence.map("{:.4f}".format)

# %% [markdown]
# Best, median and worst frame:

# %%
for which, name in figures.pick_cases(scores, "iacnn").items():
    case = data.store.cases[name]
    mask = image_files.read_mask(steps.prediction(run_folder, short, "iacnn", name))
    drawn = figures.picture_overlay(
        case.full_image()[:, :, 0],
        case.full_labels()[:, :, 0] > 0,
        mask.pixels[..., 0] > 0,
        title=f"{which}: frame {name}",
        dice={"tumour": float(scores.set_index("case").loc[name, "dice"])},
    )
    display(drawn)

# %% [markdown]
# ## 6. What the modules do
#
# Mean absolute values over the channels, on the median frame: of SFA its output, of SA and CA what
# they add to the map. Every panel has its own scale, whose ends stand above it.

# %%
[looks] = tumour_figures(run_folder, data, short)
Image(looks.path.read_bytes(), width=760)

# %% [markdown]
# And over all held-out frames, what SA and CA add, in multiples of what they get:

# %%
trained = steps.load_network(run_folder, "iacnn", ("tumour",))
held_out = steps.batches(short, data.store, data.held_out, ("tumour",), training=False)
images = np.concatenate([held_out.batch(0, step)[0] for step in range(held_out.steps_per_epoch)])
rows = {}
for stage in iacnn.ATTENDED:
    adding = {module: trained.get_layer(f"{module}{stage}").input for module in ("SA", "CA")}
    weights = {module: trained.get_layer(f"{module}{stage}_sigmoid").output for module in adding}
    answers = keras.Model(trained.input, [adding, weights])(images, training=False)
    for module in adding:
        x, added = (np.asarray(part, "float64") for part in answers[0][module])
        alpha = np.asarray(answers[1][module])
        rows[f"{module}{stage}, {size(adding[module][0])}"] = {
            "mean of the map": f"{x.mean():.2e}",
            "added / map": f"{added.mean() / x.mean():.2f}" if x.mean() else "",
            "weights from": f"{alpha.min():.3f}",
            "to": f"{alpha.max():.3f}",
            "spread over pixels / mean": f"{added.std((1, 2)).mean() / added.mean():.2f}",
        }
pd.DataFrame(rows).T

# %% [markdown]
# On the two finer levels SA adds hundreds of times the map, nearly the same to every pixel: the
# spread is a few percent. CA's weights go from 0 to 1, so it does choose among channels, and its
# panel looks like SA's, for scaling channels moves nothing in the picture.
#
# The deepest level has gone out. Its maps are of the order of 1e-5, so every entry of $x x^T$ is 0
# to within rounding, every weight 1/2, and SA adds half the sum of all 36 pixels: 18 times their
# mean, as the table has it. SFA, below it, gives the same to every pixel. A third of the network's
# parameters, those of SFA, does nothing here, and the masks are found without it. The quick
# profile ends in the same way (`experiments/iacnn/README.md`). Whether the undivided sums are the
# reason can be tried with a switch of section 2: `attention_place="none"`.
#
# ## 7. Beside the paper

# %%
[spec] = EXPERIMENT.tables
cells = report.build_table(spec, published, scores)
wide = cells.pivot(index="row", columns="metric", values=["published", "measured"])
wide = wide.reindex(cells["row"].unique())
wide.map(lambda value: "" if np.isnan(value) else f"{value:.2f}")

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
    logs={"iacnn-tumour": log},
)
reasons = report.why_not_comparable(finished, EXPERIMENT.paper)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %%
temporary.cleanup()

# %% [markdown]
# ## 8. With real data
#
# Both sets can be fetched from their owners, who ask for citation; CVC-ClinicDB is for research
# and education only. Point the experiment at the folder as it was unpacked:
#
# ```
# keras-medseg check /path/to/CVC-ClinicDB
# make reproduce-iacnn DATASET=cvc DATA=/path/to/CVC-ClinicDB
# make reproduce-iacnn DATASET=isic DATA=/path/to/ISIC2018
# ```
#
# That is the paper's recipe, for which one wants a GPU; `PROFILE=cpu` is what two cores can do in
# an hour, `python -m experiments iacnn --dataset cvc --data ... --compare` trains the five other
# networks of the tables as well. What a first training on the real frames gave, with all its
# settings, lies in `experiments/iacnn/results/`. The network alone is a Keras model:
# `keras_medseg.build("integrated_attention_cnn", input_shape=(256, 256, 3))`.
