# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Residual connections and CSAM on knee MRI
#
# One structure, the patellar ligament, in grey pictures of the knee, after "Optimisation of U-Net
# Semantic Segmentation Model Based on Residual Connectivity and Attention Mechanisms" (Jia, Zuo,
# Zou, Chen; venue and year are not in the text that this works from). Two things are added to the
# U-Net: residual connections, and CSAM, a channel attention followed by a spatial one.
#
# The paper's text contradicts itself about its own network, so this package builds two readings of
# it. The notebook sets them side by side, shows what the contradictions are, looks at the one
# table of results from the inside, and trains both readings for a minute. Everything it calls is
# the public interface of `keras_medseg`; it needs no data and no network: the knees are synthetic.
#
# Every statement of the paper, and every silence that had to be filled, has its entry in
# `experiments/csam_knee/ledger.toml`.

# %%
import inspect
import os
import tempfile
import tomllib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if Path.cwd().name == "notebooks":
    os.chdir("..")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown

import keras_medseg
from experiments.csam_knee.figures import knee_figures
from experiments.csam_knee.recipe import EXPERIMENT, RECIPE
from keras_medseg import recipe
from keras_medseg.data.batches.images import Preparation
from keras_medseg.data.datasets import image_folders
from keras_medseg.evaluation import statistics
from keras_medseg.layers import attention
from keras_medseg.models import res_csam_unet
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
# ## 1. The network, twice
#
# "In the Encoder part, the network contains multiple 1x1 convolutional layers with 64, 128, 256,
# 512, and 1024 channels in order", each followed by a max pooling; the bottleneck is "a
# 1024-channel 1x1 convolutional layer"; the decoder "contains multiple 3x3 convolutional layers
# with channels 512, 256, 128, 64" (section 2.2). Read to the letter this has two odd consequences.
#
# * Five widths, each pooled, and four up-samplings: the output would have half the size. Both
#   readings leave the fifth pooling out.
# * A 1x1 convolution sees one pixel. In such an encoder a pixel meets its neighbours in the
#   pooling alone. `variant="literal"` is built so; `variant="consistent"`, the default, has the
#   two 3x3 convolutions per level of the U-Net that the paper starts from.
#
# The table is read from the built networks. "Sees" is the side of the square of input pixels that
# one number at the end of a level depends on, CSAM apart: a 3x3 convolution adds two steps, a
# pooling one, and every pooling doubles the step.

# %%
READINGS = ("consistent", "literal")
networks = {name: keras_medseg.build("res_csam_unet", variant=name) for name in READINGS}


def size(tensor):
    return "*".join(map(str, tensor.shape[1:]))


def stage(network, name):
    """The layers of a stage; CSAM has a name of its own."""
    return [layer for layer in network.layers if layer.name.split("_")[0] == name]


def stages(network):
    """Rows of (stage, output, sees, parameters), top to bottom and up again."""
    sees, step = 1, 1
    for name in ("Encode1", "Encode2", "Encode3", "Encode4", "Encode5", "Bottleneck"):
        if layers := stage(network, name):
            kernels = [layer.kernel_size[0] for layer in layers if "_conv" in layer.name[-6:]]
            sees += step * sum(side - 1 for side in kernels)
            yield name, size(layers[-1].output), f"{sees}*{sees}", parameters(layers)
        if stage(network, name.replace("Encode", "Down")):
            sees, step = sees + step, 2 * step
    for level in (4, 3, 2, 1):
        layers = stage(network, f"Decode{level}")
        yield f"Decode{level}", size(layers[-1].output), "", parameters(layers)


def parameters(layers):
    return f"{sum(layer.count_params() for layer in layers):,}"


columns = ["stage", "output", "sees", "parameters"]
halves = {
    name: pd.DataFrame(stages(network), columns=columns).set_index("stage")
    for name, network in networks.items()
}
pd.concat(halves, axis=1).loc[halves["literal"].index].fillna("")

# %%
for name, network in networks.items():
    print(f"{name}: {network.count_params():,} parameters")

# %% [markdown]
# At the literal encoder's bottom a number sees 16x16 pixels: its own tile of the picture and
# nothing beyond, for tiles do not overlap. All that this network knows of what lies next to what
# comes from the decoder's four layers of 3x3, and from CSAM's of 7x7.
#
# ### Which residual connection?
#
# "Adding residual connections between each convolutional layer of U-Net enables the input to
# bypass one or more convolutional layers and sum up with the outputs of these layers" (abstract).
# "Each" and "one or more" are two networks again:


# %%
def source(*functions):
    text = "\n\n".join(inspect.getsource(function) for function in functions)
    return Markdown(f"```python\n{text}```")


source(res_csam_unet.residual_pair, res_csam_unet.residual_single)

# %% [markdown]
# The consistent reading bypasses two layers, as He et al. did: around a single convolution,
# *before* its ReLU, the sum $Wx + x$ is just another linear map. The literal one adds after the
# ReLU, where it is one no longer.
#
# ## 2. CSAM
#
# $$W_{CA} = \sigma\big(\mathrm{MLP}(\mathrm{GAP}(X)) + \mathrm{MLP}(\mathrm{GMP}(X))\big), \qquad
# X_{CA} = W_{CA} X$$
#
# $$W_{SA} = \sigma\big(\mathrm{conv}_{7\times 7}[\,\mathrm{mean}_c X_{CA};\ \max_c X_{CA}]\big),
# \qquad X_{SA} = W_{SA} X_{CA}$$
#
# with one MLP of one hidden layer for both poolings. (The text calls the second pair of poolings
# "global", and their result "the sum"; the shapes that it prints, 1 x H x W and 2 x H x W, are
# those of poolings over the channels and of a concatenation.) These are the two gates of CBAM, in
# CBAM's order, and so they are computed by the layer of that name:

# %%
source(attention.cbam)

# %% [markdown]
# ### Where?
#
# "A jump connection is used between the encoder and the decoder, combining the channel attention
# and spatial attention mechanisms" (section 2.2) is all there is; the figure that should show the
# place has the caption of another one, and both are lost. Here CSAM sits on the four skips, and
# the place is an option like every other open point:

# %%
SWITCHES = {
    "default: CSAM on the skips": {},
    "without CSAM": {"csam_place": "none"},
    "after the decoder's blocks": {"csam_place": "decoder"},
    "after all blocks": {"csam_place": "blocks"},
    "an MLP twice as wide": {"ratio": 8},
    "batch norm after every convolution": {"norm": "batch"},
    "1x1 encoder, as printed": {"variant": "literal"},
}
rows = {
    name: {
        "parameters": keras_medseg.build("res_csam_unet", **options).count_params(),
        "arguments of build": ", ".join(f"{k}={v!r}" for k, v in options.items()),
    }
    for name, options in SWITCHES.items()
}
table = pd.DataFrame(rows).T
table.assign(parameters=table["parameters"].map("{:,}".format))

# %% [markdown]
# Attention is cheap: four CSAMs are a tenth of a percent of the network.
#
# ## 3. What contradicts itself, and what is not said
#
# From the ledger: every place where the text was not followed to the letter ("departs") or where
# nothing, or more than one thing, is said ("chosen").

# %%
ledger = tomllib.loads(Path("experiments/csam_knee/ledger.toml").read_text())["entry"]
lines = ["| where | the paper | here | |", "|:--|:--|:--|:--|"]
for entry in ledger:
    if entry["status"] in ("departs", "chosen"):
        where, says, ours = (entry[key].replace("|", "\\|") for key in ("where", "says", "ours"))
        lines.append(f"| {where} | {says} | {ours} | {entry['status']} |")
Markdown("\n".join(lines))

# %% [markdown]
# ## 4. The one table of results, from the inside
#
# Five networks, three columns, on 300 private pictures: the loss rate (mean cross entropy), a
# column headed "THERE ARE", which by its order in the text is the MAE, and F1.

# %%
published = report.read_published("experiments/csam_knee/published.csv")
printed = published.pivot(index="row", columns="metric", values="value")
printed = printed.loc[published["row"].unique(), ["cross_entropy", "mae", "dice"]]
printed.map("{:g}".format)

# %% [markdown]
# The columns say something about the private pictures. Let a share $s$ of the pixels be ligament,
# and let a network's mask be about as large as the truth. Then it has as many false pixels as it
# misses, $2 s (1 - F_1)$ of all. If the MAE was taken of masks, this is the MAE. It is printed
# with three digits, so every row gives an interval for $s$, in percent:

# %%
wrong = 2 * (1 - printed["dice"])
shares = pd.DataFrame(
    {
        "lowest s, %": 100 * (printed["mae"] - 0.0005) / wrong,
        "highest s, %": 100 * (printed["mae"] + 0.0005) / wrong,
    }
)
low, high = shares["lowest s, %"].max(), shares["highest s, %"].min()
print(f"all five rows agree on {low:.2f} to {high:.2f} %")
shares.map("{:.2f}".format)

# %% [markdown]
# Five rows that agree are no proof, but they make sense of the column. Now the loss rate: what
# would a network score that has learned nothing but this share, and answers it for every pixel?

# %%
share = (low + high) / 200
constant = -share * np.log(share) - (1 - share) * np.log(1 - share)
print(
    f"{share:.4f} everywhere: loss rate {constant:.4f}; printed: {printed['cross_entropy'].min()}"
)

# %% [markdown]
# It would be better than all five of the table. Cross entropy punishes being sure and wrong, and
# after 500 epochs on 240 pictures a network is sure. Its loss rate says little about its masks;
# section 7 has an example.
#
# ## 5. The data
#
# The synthetic knees of `keras_medseg.phantoms.images` are sagittal slices with bones, fat,
# muscle, tendons and ligaments, in the shape of a real folder: grey pictures, and masks with a
# grey code per structure, some of them with an alpha channel, some with blurred edges. One in four
# has no patellar ligament. A recipe names the class that is meant, and the codes that are
# background; a code that is named nowhere is an error.

# %%
short = recipe.override(
    RECIPE,
    [
        *EXPERIMENT.phantom_changes,
        "data.size=(96, 96)",
        "model.overrides.filters=8",
        "model.overrides.norm=batch",
        "train.batch_size=8",
        "train.epochs=24",
        "train.learning_rate=1e-3",
        "train.schedule_options.after=(16,)",
    ],
)
print(short.data.classes)
folder = work / "phantom"
_ = images.write_images(folder, cases=96, layout="knee", size=(128, 128))

# %% [markdown]
# `keras-medseg check FOLDER --classes ...` reads every file to its end and lists what is wrong or
# odd:

# %%
checked = image_folders.ImageFolders(short.data.classes).check(folder)
lines = checked.text.replace(f"{work}/", "").splitlines()
print(*lines[:12], "...", lines[-1], sep="\n")

# %%
data = steps.load_data(folder, work / "store", short)
short = steps.settle(short, data)
print(f"{data.name}: {len(data.training)} to train on, {len(data.held_out)} held out")

# %% [markdown]
# ### Smoothing and equalisation
#
# "Applied smoothing processing and histogram equalization techniques" (section 3.1), after the
# pictures were brought to one size "in equal proportions": scaled until the longer side fits, the
# rest filled with zeros. Below the ligament's outline is drawn on the left.

# %%
with_ligament = [id for id in data.training if data.store.cases[id].labels.any()]
case = data.store.cases[with_ligament[0]]
picture, truth = case.full_image()[:, :, 0], case.full_labels()[:, :, 0] > 0
smoothing = RECIPE.data.smoothing_px
steps = {
    "as stored": picture,
    f"smoothed, {smoothing:g} pixel": Preparation(smoothing).condition(picture),
    "and equalised": Preparation(smoothing, equalisation=True).condition(picture),
}
figure, panels = plt.subplots(
    2, 3, figsize=(8.5, 4.6), layout="constrained", height_ratios=[3, 1], sharey="row"
)
for (title, pixels), (above, below) in zip(steps.items(), panels.T):
    above.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    above.set(title=title, xticks=[], yticks=[])
    below.hist(pixels.ravel(), bins=64, range=(0, 255), color="#0072B2")
    below.set(xlabel="grey value", yticks=[])
    below.spines[["top", "right", "left"]].set_visible(False)
_ = panels[0, 0].contour(truth, levels=[0.5], colors="#E69F00", linewidths=1)

# %% [markdown]
# No grey value tells the ligament from the tendons and the cortical bone. The best single
# threshold, chosen with the truth at hand, on the pictures as the network gets them:


# %%
def best_threshold(ids):
    """Best mean Dice over these pictures of one threshold, from either side."""
    prepared = Preparation(smoothing, RECIPE.data.equalisation)
    pictures, truths = [], []
    for id in ids:
        case = data.store.cases[id]
        pictures.append(prepared.condition(case.full_image()[:, :, 0])[..., 0])
        truths.append(case.full_labels()[:, :, 0] > 0)
    pictures, truths = np.array(pictures), np.array(truths)
    best = 0.0
    for value in range(0, 256, 2):
        for mask in (pictures > value, pictures <= value):
            common, both = (mask & truths).sum((1, 2)), mask.sum((1, 2)) + truths.sum((1, 2))
            best = max(best, float(np.mean(2 * common / both)))
    return best


share = np.mean([data.store.cases[id].full_labels().mean() for id in data.training])
best = best_threshold(with_ligament)
print(f"mean share of the ligament: {100 * share:.2f} % of the pixels")
print(f"best threshold, {len(with_ligament)} pictures with a ligament: Dice {best:.2f}")

# %% [markdown]
# ## 6. A short training
#
# Fewer pixels, an eighth of the filters, 24 epochs; a learning rate fifty times the paper's, for
# at 2e-5 so few steps leave the network where it was; and batch norm, which the paper does not
# have: without it nothing but background is found in so short a time. What is changed can be
# listed:

# %%
changed = recipe.differences(short, RECIPE)
table = pd.DataFrame(changed, index=["here", "paper"]).T[["paper", "here"]].map(str)
table.drop(["data.mean", "data.std"])

# %%
run_folder = work / "run"
variants = {
    name: recipe.override(short, EXPERIMENT.profiles["paper"].variants[name])
    for name in ("res_csam_unet", "literal")
}
steps.claim(run_folder, short, data, variants)
for name, variant in variants.items():
    steps.train_variant(name, variant, data, run_folder)

# %%
logs = {
    f"{name}-ligament": pd.read_csv(
        steps.training_folder(run_folder, name, ("ligament",)) / "log.csv"
    )
    for name in variants
}
curves = figures.learning_curves(logs)
curves.set_figwidth(8)
curves

# %% [markdown]
# Both begin by calling everything background: with so small an object this alone makes more than
# 99 % of the pixels right. The 3x3 network gets out of that; the 1x1 network only just begins to.
#
# ## 7. Scores
#
# Each held-out picture is predicted and scored by itself; the table gives means over pictures, as
# the paper's does. F1 of a picture is its Dice. Two empty masks have a Dice of 1, and one pixel in
# a picture without ligament makes it 0, so the pictures with a ligament stand apart.

# %%
scores = pd.concat(
    [steps.score_variant(name, variant, data, run_folder) for name, variant in variants.items()],
    ignore_index=True,
)
METRICS = ["dice", "cross_entropy", "mae", "sensitivity"]
pictures = {"all": scores, "with a ligament": scores[scores["truth_pixels"] > 0]}


def means(variant):
    return pd.DataFrame(
        {
            what: rows.loc[rows["variant"] == variant, METRICS].mean()
            for what, rows in pictures.items()
        }
    ).T


# %% tags=["scores"]
means("res_csam_unet").map("{:.4f}".format)

# %% [markdown]
# The same of the literal reading, and of an answer that says background everywhere:

# %%
empty = (scores.loc[scores["variant"] == "literal", "truth_pixels"] == 0).mean()
print(f"nothing but background: Dice {empty:.4f} over all pictures, 0 over those with a ligament")
means("literal").map("{:.4f}".format)

# %% [markdown]
# What has found nothing is rewarded for every picture in which there is nothing: a mean over all
# pictures has to be read beside the share of empty ones. And a low loss rate is no good mask: that
# of the literal network is below all five of the paper's table, and of the ligaments it has found
# little. The two readings on the same pictures:

# %%
compared = statistics.compare(scores, "literal", "res_csam_unet")
compared[["n", "baseline", "variant", "difference", "low", "high", "p"]]

# %% [markdown]
# ## 8. Masks, and where CSAM looks

# %%
masks, looks = knee_figures(run_folder, data, short)
Image(masks.path.read_bytes(), width=520)

# %%
Image(looks.path.read_bytes(), width=760)

# %% [markdown]
# The weights of one picture, each panel in its own range. In this run the finest CSAM dims what is
# dark, the ligament among it, and the second one what is bright. The third lights up the strip in
# front of the joint where the ligament lies, the only one of the four that looks like attention to
# "important spatial regions". The fourth has no shape that one could name. A weight above 0 only
# scales what the decoder is handed, and the decoder can read a dimmed place as well as a bright
# one: such maps show what a gate does, not what the network decides by.
#
# ## 9. Beside the paper

# %%
[spec] = EXPERIMENT.tables
cells = report.build_table(spec, published, scores)
key = ["row", "variant"]
wide = cells.pivot(index=key, columns="metric", values=["published", "measured"])
wide = wide.reindex(cells.set_index(key).index.unique())
wide.map(lambda value: "" if np.isnan(value) else f"{value:.4f}")

# %%
log = logs["res_csam_unet-ligament"]
finished = report.Run(
    folder=run_folder,
    recipe=short,
    provenance={
        "data_name": data.name,
        "training_cases": len(data.training),
        "profile": "notebook",
    },
    scores=scores,
    logs={"res_csam_unet-ligament": log},
)
reasons = report.why_not_comparable(finished, EXPERIMENT.paper)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %%
temporary.cleanup()

# %% [markdown]
# ## 10. With real data
#
# The paper's pictures are private. Yours go into `images/` and `masks/` with equal names, or into
# a `manifest.csv`; with masks of several grey values, name the one that is meant:
#
# ```
# keras-medseg check /path/to/knee --classes ligament=204 background=51,102,153,255
# make reproduce-csam_knee DATA=/path/to/knee \
#     SET="data.classes={'ligament':(204,),'background':(51,102,153,255)}"
# ```
#
# That is the paper's recipe, 500 epochs at 512x512, of three networks: both readings, and one
# without CSAM. One wants a GPU for it. `python -m experiments csam_knee --compare` trains U-Net,
# U-Net++ and FR-UNet beside it; without `--data`, on the synthetic knees and shortened. The
# network alone is a Keras model: `keras_medseg.build("res_csam_unet", input_shape=(None, None,
# 1))`.
