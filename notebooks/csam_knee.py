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
# One structure, the patellar ligament, in gray images of the knee, after "Optimisation of U-Net
# Semantic Segmentation Model Based on Residual Connectivity and Attention Mechanisms" (Jia, Zuo,
# Zou, Chen; venue and year are not in the text that this works from). The paper adds two things to
# the U-Net: residual connections, and CSAM, a channel attention followed by a spatial attention.
#
# The paper's text contradicts itself about its own network, so this package builds two readings of
# it. The notebook compares them, shows the contradictions, examines the paper's one table of
# results, and trains both readings for a minute. It calls the public interface of `keras_medseg`
# and trains in the same way as the command line does. It needs neither data nor an internet
# connection: the knees are synthetic.
#
# `experiments/csam_knee/ledger.toml` has an entry for every statement of the paper, and for every
# decision that the paper leaves open.

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

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown

import keras_medseg
from experiments.csam_knee.recipe import EXPERIMENTS, RECIPE
from keras_medseg import recipe
from keras_medseg.data.transforms.images import Preparation
from keras_medseg.evaluation import statistics
from keras_medseg.layers import attention
from keras_medseg.models import res_csam_unet
from keras_medseg.reporting import tables
from keras_medseg.reporting.figures import charts
from keras_medseg.reporting.report import RunData, why_not_comparable
from keras_medseg.runs import experiment, steps
from keras_medseg.runs.experiment import Profile
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks import task_of

logging.getLogger("tensorflow").setLevel("ERROR")
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10})
pd.options.display.float_format = "{:.4f}".format
pd.options.display.width = 100
pd.options.display.max_colwidth = 80
temporary = tempfile.TemporaryDirectory()
work = Path(temporary.name)
PAPER = EXPERIMENTS["knee"]

# %% [markdown]
# ## 1. The network, twice
#
# "In the Encoder part, the network contains multiple 1x1 convolutional layers with 64, 128, 256,
# 512, and 1024 channels in order", each followed by a max pooling; the bottleneck is "a
# 1024-channel 1x1 convolutional layer"; the decoder "contains multiple 3x3 convolutional layers
# with channels 512, 256, 128, 64" (section 2.2). Taken literally, this has two odd consequences:
#
# * Five levels with a pooling each, and four up-samplings, would give an output of half the size.
#   Both readings leave out the fifth pooling.
# * A 1x1 convolution sees one pixel, so in such an encoder only the poolings combine neighboring
#   pixels. `variant="literal"` is built in this way. `variant="consistent"`, the default, has two
#   3x3 convolutions on each level, like the U-Net that the paper starts from.
#
# The table is read from the built networks. "Sees" is the receptive field without CSAM: the square
# of input pixels that one value at the end of a level depends on. A 3x3 convolution enlarges its
# side by two steps, a pooling enlarges it by one, and every pooling doubles the step.

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
# At the bottom of the literal encoder, a value depends on 16x16 pixels: a tile of the image that
# does not overlap the other tiles. In this network, only the decoder's four 3x3 layers and the 7x7
# layers of CSAM can compare neighboring places.
#
# ### Which residual connection?
#
# "Adding residual connections between each convolutional layer of U-Net enables the input to
# bypass one or more convolutional layers and sum up with the outputs of these layers" (abstract).
# "Each" and "one or more" give two networks again:


# %%
def source(*functions):
    text = "\n\n".join(inspect.getsource(function) for function in functions)
    return Markdown(f"```python\n{text}```")


source(res_csam_unet.residual_pair, res_csam_unet.residual_single)

# %% [markdown]
# The consistent reading bypasses two layers, as He et al. did. Around a single convolution,
# *before* its ReLU, the sum $Wx + x$ would be nothing but another linear map. The literal reading
# adds $x$ after the ReLU, where the sum is not linear.
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
# "global", and their result "the sum". But the shapes that it prints, 1 x H x W and 2 x H x W, are
# those of poolings over the channels and of a concatenation.) These are the two gates of CBAM, in
# CBAM's order, so CBAM's layer computes them:

# %%
source(attention.cbam)

# %% [markdown]
# ### Where is CSAM?
#
# "A jump connection is used between the encoder and the decoder, combining the channel attention
# and spatial attention mechanisms" (section 2.2) is all that the text says. The figure that should
# show the place has the caption of another figure, and both figures are lost. Here CSAM sits on the
# four skips. The place is an option, like every other open point:

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
# Attention is cheap: the four CSAMs have a tenth of a percent of the network's parameters.
#
# ## 3. What contradicts itself, and what is not said
#
# From the ledger: every point where this reproduction departs from the text ("departs"), and every
# point where the text says nothing or can be read in several ways ("chosen").

# %%
ledger = tomllib.loads(Path("experiments/csam_knee/ledger.toml").read_text())["entry"]
lines = ["| where | the paper | here | |", "|:--|:--|:--|:--|"]
for entry in ledger:
    if entry["status"] in ("departs", "chosen"):
        where, says, ours = (entry[key].replace("|", "\\|") for key in ("where", "says", "ours"))
        lines.append(f"| {where} | {says} | {ours} | {entry['status']} |")
Markdown("\n".join(lines))

# %% [markdown]
# ## 4. What the one table of results implies
#
# The table has five networks and three columns, measured on 300 private images: the loss rate (mean
# cross entropy), a column headed "THERE ARE", and F1. By the order in which the text names the
# metrics, "THERE ARE" is the MAE.

# %%
published = tables.read_published("experiments/csam_knee/published.csv")
printed = published.pivot(index="row", columns="metric", values="value")
printed = printed.loc[published["row"].unique(), ["cross_entropy", "mae", "dice"]]
printed.map("{:g}".format)

# %% [markdown]
# The columns tell something about the private images. Let a share $s$ of the pixels be ligament,
# and let a network's mask be about as large as the annotation. Then there are as many false
# positive pixels as false negative ones, and together they are $2 s (1 - F_1)$ of all pixels. If
# the MAE was computed from masks, this is the MAE. It is printed with three digits, so every row
# gives an interval for $s$, in percent:

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
# Five rows that agree are no proof, but they make this reading of the column plausible. Now the
# loss rate: what would be the loss rate of a network that has learned nothing but this share, and
# predicts it for every pixel?

# %%
share = (low + high) / 200
constant = -share * np.log(share) - (1 - share) * np.log(1 - share)
print(
    f"{share:.4f} everywhere: loss rate {constant:.4f}; printed: {printed['cross_entropy'].min()}"
)

# %% [markdown]
# It would be better than all five loss rates of the table. Cross entropy punishes confident
# mistakes, and after 500 epochs on 240 images a network is confident. So the loss rate says little
# about the masks; section 7 has an example.
#
# ## 5. The data
#
# The synthetic knees of `keras_medseg.phantoms.images` are sagittal slices with bones, fat, muscle,
# tendons and ligaments. Their folder looks like a real one: gray images, and masks with a gray
# value for each structure; some masks have an alpha channel, some have blurred edges. A quarter of
# the images show no patellar ligament. The recipe names the gray value of the class, and those of
# the background; a gray value that it does not name is an error.
#
# What this notebook trains is the quick profile of the paper's experiment with changes of its own:
# two networks, on 96 synthetic images.

# %%
changes = {
    "data.validation": 0.2,
    "data.test": 0.0,
    "data.size": (96, 96),
    "model.options.filters": 8,
    "model.options.norm": "batch",
    "train.batch_size": 8,
    "train.epochs": 24,
    "train.learning_rate": 1e-3,
    "train.schedule_options.after": (16,),
}
shortened = replace(
    PAPER,
    profiles={
        "notebook": Profile(
            changes,
            {name: PAPER.profiles["quick"].variants[name] for name in ("res_csam_unet", "literal")},
            (("literal", "res_csam_unet"),),
        )
    },
    phantom=replace(PAPER.phantom, cases=96, size=(128, 128)),
)
short = recipe.override(RECIPE, {**changes, **PAPER.phantom.changes})
task = task_of(short)
print(short.data.classes)
folder = experiment.make_phantom(shortened, work)

# %% [markdown]
# `keras-medseg check FOLDER --classes ...` reads every file to its end and lists what is wrong or
# odd:

# %%
checked = task.dataset.check(folder)
lines = checked.text.replace(str(folder), "phantom").splitlines()
print(*lines[:12], "...", lines[-1], sep="\n")

# %%
cohort = steps.load_cohort(folder, experiment.store_folder(work, folder, short), task)
print(f"{cohort.name}: {len(cohort.training)} training, {len(cohort.validation)} validation cases")

# %% [markdown]
# ### Smoothing and equalization
#
# The authors "applied smoothing processing and histogram equalization techniques" (section 3.1),
# after they brought the images to one size "in equal proportions": scaled until the longer side
# fits, the rest filled with zeros. The image on the left shows the outline of the ligament.

# %%
with_ligament = [name for name in cohort.training if cohort.store.cases[name].labels.any()]
case = cohort.store.cases[with_ligament[0]]
smoothing = RECIPE.data.smoothing_px
stages_of_image = {
    "as stored": case.pixels,
    f"smoothed, {smoothing:g} pixel": Preparation(smoothing).condition(case.pixels),
    "and equalized": Preparation(smoothing, equalization=True).condition(case.pixels),
}
figure, panels = plt.subplots(
    2, 3, figsize=(8.5, 4.6), layout="constrained", height_ratios=[3, 1], sharey="row"
)
for (title, pixels), (above, below) in zip(stages_of_image.items(), panels.T):
    above.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    above.set(title=title, xticks=[], yticks=[])
    below.hist(pixels.ravel(), bins=64, range=(0, 255), color="#0072B2")
    below.set(xlabel="gray value", yticks=[])
    below.spines[["top", "right", "left"]].set_visible(False)
_ = panels[0, 0].contour(case.mask > 0, levels=[0.5], colors="#E69F00", linewidths=1)

# %% [markdown]
# No gray value distinguishes the ligament from the tendons and the cortical bone. Here is the best
# single threshold, chosen with the annotations, on the images as the network gets them:


# %%
def best_threshold(cases):
    """Best mean Dice over these images of one threshold, from either side."""
    prepared = Preparation(smoothing, RECIPE.data.equalization)
    images = np.array([prepared.condition(case.pixels)[..., 0] for case in cases])
    truths = np.array([case.mask > 0 for case in cases])
    best = 0.0
    for value in range(0, 256, 2):
        for mask in (images > value, images <= value):
            common, both = (mask & truths).sum((1, 2)), mask.sum((1, 2)) + truths.sum((1, 2))
            best = max(best, float(np.mean(2 * common / both)))
    return best


share = np.mean([cohort.store.cases[name].mask.mean() for name in cohort.training])
best = best_threshold([cohort.store.cases[name] for name in with_ligament])
print(f"mean share of the ligament: {100 * share:.2f} % of the pixels")
print(f"best threshold, {len(with_ligament)} images with a ligament: Dice {best:.2f}")

# %% [markdown]
# ## 6. A short training
#
# The training has fewer pixels, an eighth of the filters, and 24 epochs. Its learning rate is fifty
# times the paper's, because a rate of 2e-5 hardly changes the weights in so few steps. And it has
# batch normalization, which the paper does not have. Without it PyTorch's initialization shrinks
# the signal layer by layer, and the lowest levels start with gradients below Adam's epsilon. The
# printed recipe does learn: `python -m experiments.csam_knee.memorize` gives it ten images, of
# which it finds nothing for 600 steps and has them by heart after 875, with the norm after 100. So
# without it this training would end too early. A recipe is plain data, so its differences from the
# paper's can be listed:

# %%
changed = recipe.differences(short, RECIPE)
pd.DataFrame(changed, index=["here", "paper"]).T[["paper", "here"]].map(str)

# %% [markdown]
# `experiment.run` is what the command line calls too: it trains, predicts the validation images,
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
logs = run.logs()
curves = charts.learning_curves(
    {f"{name}-ligament": logs[f"{name}-ligament"] for name in run.variants}
)
curves.set_figwidth(8)
curves

# %% [markdown]
# Both networks begin by predicting background everywhere; for so small an object, this alone makes
# more than 99 % of the pixels right. The 3x3 network soon does better, the 1x1 network only just
# begins to.
#
# ## 7. Scores
#
# The run has predicted and scored each validation image by itself. The table gives means over
# images, as the paper's does. F1 of an image is its Dice. Two empty masks have a Dice of 1, and a
# single predicted pixel in an image without ligament makes it 0, so the images with a ligament are
# also listed by themselves.

# %%
scores = run.scores()
METRICS = ["dice", "cross_entropy", "mae", "mae_mask", "sensitivity"]
rows_of = {"all": scores, "with a ligament": scores[scores["truth_pixels"] > 0]}


def means(variant):
    chosen = {what: rows[rows["variant"] == variant] for what, rows in rows_of.items()}
    return pd.DataFrame({what: rows[METRICS].mean() for what, rows in chosen.items()}).T


# %% tags=["scores"]
means("res_csam_unet").map("{:.4f}".format)

# %% [markdown]
# The same for the literal reading, and the Dice of a prediction of background everywhere:

# %%
empty = (scores.loc[scores["variant"] == "literal", "truth_pixels"] == 0).mean()
print(f"nothing but background: Dice {empty:.4f} over all images, 0 over those with a ligament")
means("literal").map("{:.4f}".format)

# %% [markdown]
# A network that finds nothing is rewarded for every image in which there is nothing, so a mean over
# all images must be read together with the share of empty ones. And a low loss rate does not mean a
# good mask: the loss rate of the literal network is below all five of the paper's table, yet it has
# found little of the ligaments. The two readings compared on the same images:

# %%
compared = statistics.compare(scores, "literal", "res_csam_unet")
compared[["n", "baseline", "variant", "difference", "low", "high", "p"]]

# %% [markdown]
# ## 8. Masks, and the weights of CSAM
#
# The report's figure of the masks of both networks:

# %%
Image(run.figure("networks").read_bytes(), width=520)

# %% [markdown]
# And its figure of the spatial weights of CSAM:

# %%
Image(run.figure("attention").read_bytes(), width=760)

# %% [markdown]
# These are the weights of one image, each panel scaled to its own range. In this run, the finest
# CSAM gives small weights to dark places, the ligament among them, and the second one to bright
# places. The third has large weights in the strip in front of the joint where the ligament lies; it
# is the only one of the four that looks like attention to "important spatial regions". The fourth
# has no recognizable shape. A weight above 0 only scales the features that the decoder gets, and
# the decoder can use small features as well as large ones. So such maps show what a gate does, but
# not what the network bases its decision on.
#
# ## 9. Beside the paper

# %%
[spec] = PAPER.tables
cells = tables.build_table(spec, published, scores)
key = ["row", "variant"]
wide = cells.pivot(index=key, columns="metric", values=["published", "measured"])
wide = wide.reindex(cells.set_index(key).index.unique())
wide.map(lambda value: "" if np.isnan(value) else f"{value:.4f}")

# %%
measured = RunData(run.recipe, run.provenance(), scores, logs)
reasons = why_not_comparable(measured, PAPER.reference)
Markdown("\n".join(f"* {reason}" for reason in reasons))

# %%
temporary.cleanup()

# %% [markdown]
# ## 10. With real data
#
# The paper's images are private. Put yours into `images/` and `masks/` with equal names, or list
# them in a `manifest.csv`. If the masks have several gray values, name the one of the ligament:
#
# ```
# keras-medseg check /path/to/knee --classes ligament=204 background=51,102,153,255
# make reproduce-csam_knee DATA=/path/to/knee \
#     SET="data.classes={'ligament':(204,),'background':(51,102,153,255)}"
# ```
#
# That is the paper's recipe, 500 epochs at 512x512, for four networks: both readings, one without
# CSAM, and one with batch norm. It is best done on a GPU. `python -m experiments csam_knee
# --compare` trains U-Net, U-Net++, a residual U-Net and FR-UNet beside the consistent reading;
# without `--data` it uses the synthetic knees and is shortened. The network alone is a Keras model:
# `keras_medseg.build("res_csam_unet", input_shape=(None, None, 1))`.
