"""The card of weights: what a reader must know before using them, written from what is known."""

from collections.abc import Iterator, Mapping
from typing import Any

_FEW_CASES = 20
"""Below this number of scored cases a card warns of its intervals; see `bootstrap_interval`."""

NO_DEVICE = (
    "Research on methods. The weights are no medical device: nobody has examined whether they may "
    "be used for diagnosis or treatment."
)


def write_card(manifest: Mapping[str, Any], text: str = "") -> str:
    """The card in Markdown.

    Args:
        manifest: package.json of the weights, without the checksums.
        text: of the packer, in Markdown; it is added at the end.
    """
    sections = [
        ("", summary(manifest)),
        ("Intended use", [NO_DEVICE]),
        ("Limits", limits(manifest)),
        ("Input", _input(manifest)),
        ("Output", _output(manifest)),
        ("Data", _data(manifest)),
        ("Scores", _scores(manifest)),
        ("Training", _training(manifest["training"])),
        ("License", [manifest["license"] or "Not stated. Ask the packer before you pass them on."]),
        ("From the packer", [text.strip()] if text.strip() else []),
    ]
    parts = [f"# {manifest['name']}"]
    for title, lines in sections:
        if lines := [*lines]:
            parts.append((f"## {title}\n\n" if title else "") + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def summary(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What the networks are, and on what they were trained."""
    network, data = manifest["network"], manifest["data"]
    count = len(manifest["output"]["networks"])
    networks = "One network" if count == 1 else f"{count} networks"
    yield (
        f"{networks} `{network['name']}` with {network['parameters']:,} parameters in all, trained "
        f"on {data['name']} with keras_medseg {manifest['keras_medseg']}."
    )


def limits(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must not expect of the networks, an item of a list each."""
    data = manifest["data"]
    if data["phantom"]:
        yield (
            "* Trained on **synthetic** cases. The weights show that the commands work, and say "
            "nothing about patients."
        )
    yield f"* Other data than {data['name']} (scanners, protocols, patients) were not examined."
    if window := manifest["input"]["window"]:
        size = " x ".join(map(str, window))
        yield f"* Outside the center window of {size} voxels nothing is found."
    if acts := data["steered"]:
        yield f"* The scored cases also {' and '.join(acts)}: their scores are too good."
    if data[data["scored"]] < _FEW_CASES:
        yield f"* Only {data[data['scored']]} cases were scored: the intervals are too narrow."


def _input(manifest: Mapping[str, Any]) -> Iterator[str]:
    given = manifest["input"]
    size = " x ".join(map(str, given["size"]))
    yield f"* Data set `{given['dataset']}`: {', '.join(given['releases'])}."
    yield f"* Channels, in this order: {', '.join(given['channels'])}."
    if (seen := given["channels_seen"]) != given["channels"]:
        yield f"* The networks see {', '.join(seen)} of them."
    yield f"* The networks see {size} voxels or pixels at a time."
    if given["spacing_mm"]:
        yield f"* Volumes are resampled to {' x '.join(map(str, given['spacing_mm']))} mm."
    yield f"* Normalization: `{given['normalization']}`{_fitted(given['fitted'])}."


def _fitted(numbers: Mapping[str, Any]) -> str:
    told = (f"{name} {', '.join(f'{v:.6g}' for v in values)}" for name, values in numbers.items())
    return f", with {'; '.join(told)} of the training cases" if numbers else ""


def _output(manifest: Mapping[str, Any]) -> Iterator[str]:
    output = manifest["output"]
    for code, label in output["labels"].items():
        yield f"* Label {code}: {label}."
    for network in output["networks"]:
        yield f"* A network for {', '.join(network['regions'])}."


def _data(manifest: Mapping[str, Any]) -> Iterator[str]:
    data = manifest["data"]
    sides = (f"{data[side]} {side}" for side in ("training", "validation", "test") if data[side])
    yield f"{data['name']}: {', '.join(sides)} cases; `run.json` names them."
    yield f"Fingerprint of all voxels and labels: `{data['fingerprint']}`."
    yield "The license of the data is that of their owner; these weights contain no image."


def _scores(manifest: Mapping[str, Any]) -> Iterator[str]:
    rows = manifest["scores"]
    if not rows:
        return
    yield "| region | metric | mean | 95 % interval | cases |"
    yield "|---|---|--:|--:|--:|"
    for row in rows:
        interval = "–" if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}"
        yield f"| {row['region']} | {row['metric']} | {row['mean']:.4f} | {interval} | {row['n']} |"
    yield ""
    side = manifest["data"]["scored"]
    yield f"On the {side} cases. Intervals: bootstrap of the mean over cases, or over groups."


def _training(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "* Settings: `recipe.json`."
    if "init" in facts:
        digests = (f"{name} `{text[:12]}`" for name, text in facts["init"]["sha256"].items())
        yield f"* Started from the weights {facts['init']['weights']}: {', '.join(digests)}."
    if "training_seconds" in facts:
        devices = ", ".join(facts.get("devices", ())) or "unknown devices"
        yield f"* Time: {facts['training_seconds']:,.0f} s of training on {devices}."
    if "peak_memory_gb" in facts:
        yield f"* Memory: {facts['peak_memory_gb']:.2f} GB at its peak."
    if "versions" in facts:
        versions = ", ".join(f"{name} {text}" for name, text in facts["versions"].items())
        yield f"* Versions: {versions}."
