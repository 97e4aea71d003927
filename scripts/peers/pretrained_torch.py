"""The network and the recipe `pretrained` in PyTorch: EfficientNet-Lite0 as the way down, trained as by TensorFlow.

Modules are named and laid out as lookbook's weights and statistics are, so a `weights.safetensors` is a state dict.
"""

import torch
from recipe_torch import BETA_1, BETA_2, Recipe
from torch import nn
from torch.nn import functional
from unet_torch import CATEGORY_COUNT

VARIANCE_EPSILON = 1e-3
# A photo's mean and deviation, as shares of 255.
MEAN, DEVIATION = 127 / 255, 128 / 255
STEM = 32
# Repeats, kernel, stride of the first, expansion, channels: Tan and Le, 2019, without squeeze-and-excite.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# The decoder's, top to bottom.
CHANNELS = (32, 64, 96, 128)


def blocks():
    """Kernel, stride, channels of the depthwise convolution and of the output of each block."""
    inputs = STEM
    for repeats, kernel, stride, expansion, out in STAGES:
        for at in range(repeats):
            yield kernel, stride if at == 0 else 1, expansion * inputs, out
            inputs = out


def spec(columns, rows):
    """What lookbook calls this network, in the metadata of its weights."""
    of_blocks = [dict(zip(("kernel", "stride", "inner", "out"), it)) for it in blocks()]
    encoder = {"mean": [MEAN] * 3, "deviation": [DEVIATION] * 3, "padding": "same", "stem": STEM, "blocks": of_blocks}
    of_network = {"loss": "softmax", "channels": CHANNELS, "stride": 2, "batch_norm": True, "encoder": encoder}
    return {"photo_width_px": columns, "photo_height_px": rows} | of_network


class Layer(nn.Module):
    """A convolution and its batch normalisation, which `fold` makes one."""

    def __init__(self, inputs, out, kernel, stride=1, groups=1):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, inputs // groups, kernel, kernel))
        self.scale, self.bias = nn.Parameter(torch.empty(out)), nn.Parameter(torch.empty(out))
        self.register_buffer("mean", torch.zeros(out))
        self.register_buffer("variance", torch.ones(out))
        self.kernel, self.stride, self.groups, self.momentum, self.is_folded = kernel, stride, groups, 0.02, False

    def convolve(self, x, bias=None):
        if self.stride == 1:
            return functional.conv2d(x, self.weight, bias, padding=self.kernel // 2, groups=self.groups)
        # As TensorFlow pads: the odd zero below and to the right.
        x = functional.pad(x, (self.kernel // 2 - 1, self.kernel // 2) * 2)
        return functional.conv2d(x, self.weight, bias, stride=2, groups=self.groups)

    def forward(self, x):
        if self.is_folded:
            return self.convolve(x, self.bias)
        statistics = (self.mean, self.variance)
        of_layer = (self.scale, self.bias, self.training, self.momentum, VARIANCE_EPSILON)
        return functional.batch_norm(self.convolve(x), *statistics, *of_layer)

    @torch.no_grad()
    def fold(self):
        factor = self.scale / torch.sqrt(self.variance + VARIANCE_EPSILON)
        self.weight *= factor[:, None, None, None]
        self.bias -= self.mean * factor
        self.is_folded = True


class Block(nn.Module):
    """An inverted residual block."""

    def __init__(self, inputs, kernel, stride, inner, out):
        super().__init__()
        self.expand = Layer(inputs, inner, 1) if inner != inputs else None
        self.depthwise = Layer(inner, inner, kernel, stride, groups=inner)
        self.project = Layer(inner, out, 1)
        self.stride, self.is_residual = stride, stride == 1 and out == inputs

    def forward(self, x):
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return y + x if self.is_residual else y


class EncoderUNet(nn.Module):
    """Photos u8 [batch, rows, columns, 3] to logits [batch, 23, rows / 2, columns / 2]."""

    def __init__(self):
        super().__init__()
        self.stem = Layer(3, STEM, 3, stride=2)
        inputs, skips = STEM, []
        for number, (kernel, stride, inner, out) in enumerate(blocks(), start=1):
            if stride == 2:
                skips.append(inputs)
            self.add_module(f"block{number}", Block(inputs, kernel, stride, inner, out))
            inputs = out
        for level, channels in enumerate(reversed(CHANNELS), start=1):
            self.add_module(f"up{level}t", nn.ConvTranspose2d(inputs, channels, 2, stride=2))
            self.add_module(f"up{level}a", Layer(channels + skips.pop(), channels, 3))
            self.add_module(f"up{level}b", Layer(channels, channels, 3))
            inputs = channels
        self.out = nn.Conv2d(inputs, CATEGORY_COUNT, 1)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 4:
                nn.init.kaiming_normal_(parameter)
            elif name.endswith("scale"):
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.1)

    def forward(self, photos):
        # The permutation of u8 [batch, rows, columns, 3] is channels_last already.
        x = (photos.permute(0, 3, 1, 2).float() / 255 - MEAN) / DEVIATION
        x = functional.relu6(self.stem(x))
        skips = []
        for number in range(1, 1 + len(list(blocks()))):
            block = getattr(self, f"block{number}")
            if block.stride == 2:
                skips.append(x)
            x = block(x)
        for level in range(1, 1 + len(CHANNELS)):
            x = getattr(self, f"up{level}t")(x)
            x = torch.cat([x, skips.pop()], dim=1)
            for half in "ab":
                x = functional.relu(getattr(self, f"up{level}{half}")(x))
        return self.out(x)

    @staticmethod
    def enlarge(label_maps):
        return label_maps.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def layers(network):
    return [it for it in network.modules() if isinstance(it, Layer)]


@torch.no_grad()
def take_statistics(network, photos):
    """Sets the mean and variance of each layer to those of a batch."""
    for layer in layers(network):
        layer.momentum = 1.0
    network.train()(photos)


class Pretrained(Recipe):
    """The recipe `pretrained`, all categories weighted equally: cross-entropy and Dice, and AdamW, with a lower rate for the
    encoder and without decay for scales and biases.
    """

    NETWORK, LEARNING_RATE, ENCODER_RATE, WEIGHT_DECAY, DICE = EncoderUNet, 3e-3, 0.1, 0.01, 1.0

    def optimizer(self):
        groups = {}
        for name, parameter in self.network.named_parameters():
            groups.setdefault((name.startswith(("stem", "block")), parameter.dim() == 4), []).append(parameter)
        of_groups = [
            {
                "params": parameters,
                "lr": self.LEARNING_RATE * (self.ENCODER_RATE if of_encoder else 1.0),
                "weight_decay": self.WEIGHT_DECAY if are_kernels else 0.0,
            }
            for (of_encoder, are_kernels), parameters in groups.items()
        ]
        return torch.optim.AdamW(of_groups, betas=(BETA_1, BETA_2), fused=True)

    def loss_of(self, logits, labels):
        truth = labels.long()
        logs = functional.log_softmax(logits, dim=1)
        hit = (truth[:, None] == torch.arange(CATEGORY_COUNT, device=truth.device)[:, None, None]).float()
        probabilities, all_pixels = logs.exp(), (0, 2, 3)
        pixels = hit.sum(all_pixels)
        dice = 2 * (probabilities * hit).sum(all_pixels) / (probabilities.sum(all_pixels) + pixels)
        is_there = (pixels > 0).float()
        missed = 1 - (dice * is_there).sum() / is_there.sum()
        return functional.nll_loss(logs, truth) + self.DICE * missed

    def predict(self, photos):
        if self.network.training:
            self.network.eval()
            for layer in layers(self.network):
                layer.fold()
        return super().predict(photos)
