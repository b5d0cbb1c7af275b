"""Three networks in plain PyTorch, for benchmarks/networks.py to set ours beside.

Written from the descriptions that the builders of the same names document, as a PyTorch user would:
eager modules, channels_last memory, Adam, autocast for bfloat16.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


def convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Twice 3x3 convolution, batch norm, ReLU."""
    layers = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def upsampling(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Gate(nn.Module):
    """psi = sigmoid(BN conv1x1 ReLU(BN conv1x1 g + BN conv1x1 x)); gives x * psi."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 2
        self.g, self.x = self._pointwise(channels, width), self._pointwise(channels, width)
        self.psi = self._pointwise(width, 1)

    def _pointwise(self, inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.psi(F.relu(self.g(g) + self.x(x))))


class UNet(nn.Module):
    """Five levels of `convolutions`, max pooling, concatenation (skip, up); gates on the skips."""

    def __init__(self, channels: int, filters: int = 64, gates: bool = False) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(5)]
        self.encode = nn.ModuleList(map(convolutions, [channels, *widths[:4]], widths))
        down = list(reversed(widths))
        self.up = nn.ModuleList(map(upsampling, down[:4], down[1:]))
        self.gates = nn.ModuleList(Gate(width) if gates else None for width in down[1:])
        self.decode = nn.ModuleList(convolutions(2 * width, width) for width in down[1:])
        self.output = nn.Conv2d(filters, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, encode in enumerate(self.encode):
            x = encode(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = skips.pop()
        for up, gate, decode in zip(self.up, self.gates, self.decode):
            x, skip = up(x), skips.pop()
            x = decode(torch.cat([gate(x, skip) if gate else skip, x], dim=1))
        return self.output(x)


def instance_convolutions(*widths: int) -> nn.Sequential:
    """3x3 convolution, instance norm without weights, LeakyReLU 0.02, from width to width."""
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs)]
        layers.append(nn.LeakyReLU(0.02))
    return nn.Sequential(*layers)


class FMNet(nn.Module):
    """FM-Net in two dimensions, as its authors' code computes it: joins [skip, skip * psi]."""

    def __init__(self, channels: int, filters: int = 32) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(5)]
        self.encode = nn.ModuleList(
            instance_convolutions(inputs, width, width)
            for inputs, width in zip([channels, *widths], widths)
        )
        self.bottleneck = instance_convolutions(*[widths[4]] * 5)
        down = list(reversed(widths))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), instance_convolutions(inputs, width))
            for inputs, width in pairwise(down)
        )
        self.gates = nn.ModuleList(map(Gate, down[1:]))
        self.decode = nn.ModuleList(
            instance_convolutions(2 * width, width, width) for width in down[1:]
        )
        self.heads = nn.ModuleList(nn.Conv2d(filters * factor, 3, 1) for factor in (1, 2, 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        skips = []
        for level, encode in enumerate(self.encode):
            x = encode(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x, size, stages = self.bottleneck(skips.pop()), skips[0].shape[2:], []
        for up, gate, decode in zip(self.up, self.gates, self.decode):
            skip = skips.pop()
            x = decode(torch.cat([skip, gate(up(x), skip)], dim=1))
            stages.append(x)
        outputs = [head(stages[stage]) for head, stage in zip(self.heads, (3, 2, 3))]
        outputs[1] = F.interpolate(outputs[1], size, mode="bilinear", align_corners=True)
        return [torch.sigmoid(y) for y in outputs]


NETWORKS = {
    "unet": UNet,
    "attention_unet": lambda channels: UNet(channels, gates=True),
    "fmnet": FMNet,
}
