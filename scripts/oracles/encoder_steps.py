"""What PyTorch does in three steps with a small network of the pretrained kind: tests/data/encoder_steps.safetensors.

    python scripts/oracles/encoder_steps.py FILE

Needs PyTorch, NumPy and safetensors. The network has the encoder of ENCODER and the decoder of CHANNELS, once with a presence
head, whose loss has the weight PRESENCE; weights, photos and labels are drawn. Gradients are PyTorch's own. AdamW is written out, as it has the epsilon of Keras and each group's own
rate: the encoder's weights learn at ENCODER_RATE times the rate, and kernels decay by DECAY.
"""

import json
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

ROWS, COLUMNS, BATCH, STEPS = 48, 64, 2, 3
RATE, ENCODER_RATE, DECAY = 3e-3, 0.1, 0.05
STATISTICS_RATE = 0.25
PRESENCE = 0.5
CATEGORIES = 23
EPSILON = 1e-3
CHANNELS = [8, 16]
ENCODER = {
    "mean": [0.5, 0.45, 0.4],
    "deviation": [0.5, 0.25, 0.2],
    "stem": 8,
    "blocks": [
        {"kernel": 3, "stride": 1, "inner": 8, "out": 16},
        {"kernel": 3, "stride": 2, "inner": 32, "out": 24},
        {"kernel": 5, "stride": 1, "inner": 48, "out": 24},
        {"kernel": 5, "stride": 2, "inner": 40, "out": 32},
        {"kernel": 3, "stride": 1, "inner": 48, "out": 32},
    ],
}


def layers(presence):
    """Name, shape of the weight, and whether the layer is normalised, in the order of the forward pass."""
    yield "stem", (ENCODER["stem"], 3, 3, 3), True
    channels, taps = ENCODER["stem"], []
    lowest = ENCODER["blocks"][-1]["out"]
    for number, block in enumerate(ENCODER["blocks"], 1):
        kernel, inner, out = block["kernel"], block["inner"], block["out"]
        if block["stride"] == 2:
            taps.append(channels)
        if inner != channels:
            yield f"block{number}.expand", (inner, channels, 1, 1), True
        yield f"block{number}.depthwise", (inner, 1, kernel, kernel), True
        yield f"block{number}.project", (out, inner, 1, 1), True
        channels = out
    for level, (out, skip) in enumerate(zip(reversed(CHANNELS), reversed(taps)), 1):
        yield f"up{level}t", (channels, out, 2, 2), False
        yield f"up{level}a", (out, out + skip, 3, 3), True
        yield f"up{level}b", (out, out, 3, 3), True
        channels = out
    yield "out", (CATEGORIES, channels, 1, 1), False
    if presence:
        yield "presence", (CATEGORIES, lowest, 1, 1), False


def drawn(generator, presence):
    weights, statistics = {}, {}
    for name, shape, normalised in layers(presence):
        fan = shape[1] * shape[2] * shape[3]
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / fan**0.5
        out = shape[1] if name.startswith("up") and not normalised else shape[0]
        if normalised:
            weights[f"{name}.scale"] = 0.5 + torch.rand(out, generator=generator)
            statistics[f"{name}.mean"] = torch.randn(out, generator=generator)
            statistics[f"{name}.variance"] = 0.5 + torch.rand(out, generator=generator)
        weights[f"{name}.bias"] = torch.randn(out, generator=generator) * 0.1
    return weights, statistics


class Pass:
    """One way through the network, with the statistics of the batch (`training`) or with the stored ones."""

    def __init__(self, padding, weights, statistics, training):
        self.padding, self.weights, self.statistics, self.training = padding, weights, statistics, training
        self.of_batch = {}

    def zeros(self, x, kernel, stride):
        before = (kernel - 1) // 2
        if stride == 2 and self.padding == "same":
            before -= 1
        after = kernel - stride - before if stride == 2 and self.padding == "same" else (kernel - 1) // 2
        return F.pad(x, (before, after, before, after))

    def layer(self, x, name, kernel, stride=1, groups=1):
        y = F.conv2d(self.zeros(x, kernel, stride), self.weights[f"{name}.weight"], stride=stride, groups=groups)
        if self.training:
            mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
            self.of_batch[f"{name}.mean"], self.of_batch[f"{name}.variance"] = mean.detach(), variance.detach()
        else:
            mean, variance = self.statistics[f"{name}.mean"], self.statistics[f"{name}.variance"]
        scale, bias = self.weights[f"{name}.scale"], self.weights[f"{name}.bias"]
        y = (y - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + EPSILON)
        return y * scale[:, None, None] + bias[:, None, None]

    def logits(self, photos):
        x = photos.permute(0, 3, 1, 2).float() / 255
        x = (x - torch.tensor(ENCODER["mean"])[:, None, None]) / torch.tensor(ENCODER["deviation"])[:, None, None]
        x = F.relu6(self.layer(x, "stem", 3, 2))
        taps = []
        for number, block in enumerate(ENCODER["blocks"], 1):
            kernel, stride, inner = block["kernel"], block["stride"], block["inner"]
            if stride == 2:
                taps.append(x)
            begin = x
            if inner != x.shape[1]:
                x = F.relu6(self.layer(x, f"block{number}.expand", 1))
            x = F.relu6(self.layer(x, f"block{number}.depthwise", kernel, stride, groups=inner))
            x = self.layer(x, f"block{number}.project", 1)
            if stride == 1 and x.shape == begin.shape:
                x = x + begin
        lowest = x
        for level, skip in enumerate(reversed(taps), 1):
            x = F.conv_transpose2d(x, self.weights[f"up{level}t.weight"], self.weights[f"up{level}t.bias"], stride=2)
            x = torch.cat([x, skip], 1)
            x = F.relu(self.layer(x, f"up{level}a", 3))
            x = F.relu(self.layer(x, f"up{level}b", 3))
        logits = F.conv2d(x, self.weights["out.weight"], self.weights["out.bias"])
        if "presence.weight" not in self.weights:
            return logits
        self.presence = lowest.mean((2, 3)) @ self.weights["presence.weight"].flatten(1).T + self.weights["presence.bias"]
        return logits + F.logsigmoid(self.presence)[:, :, None, None]


def run(padding, seed, presence):
    generator = torch.Generator().manual_seed(seed)
    weights, statistics = drawn(generator, presence)
    photos = torch.randint(0, 256, (STEPS, BATCH, ROWS, COLUMNS, 3), generator=generator, dtype=torch.uint8)
    # Coarse squares, so that there is something to learn.
    labels = torch.randint(0, CATEGORIES, (STEPS, BATCH, ROWS // 16, COLUMNS // 16), generator=generator)
    labels = labels.repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8)
    stored = {f"init/{name}": value.clone() for name, value in (weights | statistics).items()}
    stored |= {"images": photos, "labels": labels}
    moments = {name: [torch.zeros_like(value), torch.zeros_like(value)] for name, value in weights.items()}
    losses = []
    for step in range(1, STEPS + 1):
        leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
        network = Pass(padding, leaves, statistics, training=True)
        loss = F.cross_entropy(network.logits(photos[step - 1]), labels[step - 1].long())
        if presence:
            present = F.one_hot(labels[step - 1].long(), CATEGORIES).amax((1, 2)).float()
            loss = loss + PRESENCE * F.binary_cross_entropy_with_logits(network.presence, present)
        loss.backward()
        losses.append(loss.item())
        for name, leaf in leaves.items():
            first, second = moments[name]
            first += (leaf.grad - first) * (1 - 0.9)
            second += (leaf.grad**2 - second) * (1 - 0.999)
            change = (1 - 0.999**step) ** 0.5 / (1 - 0.9**step) * first / (second.sqrt() + 1e-7)
            of_encoder = name.startswith(("stem", "block"))
            decay = DECAY if leaf.dim() == 4 else 0.0
            rate = RATE * (ENCODER_RATE if of_encoder else 1.0)
            weights[name] = weights[name] - rate * (change + decay * weights[name])
            if step == 1:
                stored[f"gradient/{name}"] = leaf.grad.clone()
        for name, value in network.of_batch.items():
            statistics[name] = statistics[name] + STATISTICS_RATE * (value - statistics[name])
    stored |= {f"final/{name}": value for name, value in (weights | statistics).items()}
    stored["losses"] = torch.tensor(losses)
    with torch.no_grad():
        stored["probabilities"] = Pass(padding, weights, statistics, False).logits(photos[0]).softmax(1)
    return stored


torch.set_num_threads(1)
of_cases = {}
for case, padding, seed in [("same", "same", 1), ("symmetric", "symmetric", 2), ("presence", "same", 3)]:
    stored = run(padding, seed, case == "presence")
    of_cases |= {f"{case}/{name}": value.contiguous() for name, value in stored.items()}
    print(case, stored["losses"].numpy().round(5))
metadata = {"encoder": json.dumps(ENCODER), "channels": json.dumps(CHANNELS)}
save_file(of_cases, sys.argv[1], metadata)
print(sum(value.numel() * value.element_size() for value in of_cases.values()), "bytes", np.__version__)
