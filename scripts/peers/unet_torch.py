"""The network and the recipe `seed` in PyTorch, on the CPU or on CUDA.

Modules are named and laid out as lookbook's weights are, so a `weights.safetensors` is a state dict.
"""

import math

import torch
from torch import nn
from torch.nn import functional

CATEGORY_COUNT = 23
CHANNELS = (8, 16, 32, 64, 128)


class UNet(nn.Module):
    """Photos u8 [batch, rows, columns, 3] to logits [batch, 23, rows, columns]."""

    def __init__(self):
        super().__init__()
        inputs = 3
        for level, channels in enumerate(CHANNELS, start=1):
            self.add_module(f"down{level}a", nn.Conv2d(inputs, channels, 3, padding=1))
            self.add_module(f"down{level}b", nn.Conv2d(channels, channels, 3, padding=1))
            inputs = channels
        for level, channels in enumerate(CHANNELS[-2::-1], start=1):
            self.add_module(f"up{level}t", nn.ConvTranspose2d(inputs, channels, 2, stride=2))
            self.add_module(f"up{level}a", nn.Conv2d(2 * channels, channels, 3, padding=1))
            self.add_module(f"up{level}b", nn.Conv2d(channels, channels, 3, padding=1))
            inputs = channels
        self.out = nn.Conv2d(inputs, CATEGORY_COUNT, 1)
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def pair(self, x, name):
        for half in "ab":
            x = functional.relu(getattr(self, name + half)(x))
        return x

    def forward(self, photos):
        # The permutation of u8 [batch, rows, columns, 3] is channels_last already.
        x = photos.permute(0, 3, 1, 2).float() / 255
        skips = []
        for level in range(1, len(CHANNELS) + 1):
            x = self.pair(x if level == 1 else functional.max_pool2d(x, 2), f"down{level}")
            skips.append(x)
        skips.pop()
        for level in range(1, len(CHANNELS)):
            x = getattr(self, f"up{level}t")(x)
            x = self.pair(torch.cat([x, skips.pop()], dim=1), f"up{level}")
        return self.out(x)


class Seed:
    """The recipe: mean binary cross-entropy over all maps, Adam as Keras applies it."""

    def __init__(self, device="cpu", form="eager", precision="fp32", learning_rate=1e-3, weights=None):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
        self.device, self.bf16, self.steps = torch.device(device), precision == "bf16", 0
        self.network = UNet()
        if weights is not None:
            self.network.load_state_dict(weights)
        self.network.to(self.device, memory_format=torch.channels_last)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=learning_rate, fused=True)
        self.categories = torch.arange(CATEGORY_COUNT, dtype=torch.uint8, device=self.device)[:, None, None]
        compiled = torch.compile if form == "compile" else lambda function: function
        self.loss, self.label_maps = compiled(self._loss), compiled(self._label_maps)

    def _logits(self, photos):
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.network(photos)

    def _loss(self, photos, labels):
        truth = (labels[:, None] == self.categories).float()
        return functional.binary_cross_entropy_with_logits(self._logits(photos).float(), truth)

    def _label_maps(self, photos):
        return self._logits(photos).argmax(dim=1).to(torch.uint8)

    def step(self, photos, labels):
        """One step on u8 tensors of the device; the loss before it, a scalar of the device."""
        self.steps += 1
        # PyTorch adds epsilon after the bias correction, Keras before it.
        self.adam.param_groups[0]["eps"] = 1e-7 / math.sqrt(1 - 0.999**self.steps)
        loss = self.loss(photos, labels)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.inference_mode()
    def predict(self, photos):
        """Category of each pixel, u8 [batch, rows, columns]."""
        return self.label_maps(photos)

    @torch.inference_mode()
    def evaluate(self, photos, labels, real):
        """Mean loss and label maps, u8, over the pixels `real` of numpy arrays."""
        logits = self._logits(torch.from_numpy(photos).to(self.device)).float().permute(0, 2, 3, 1)[real]
        truth = torch.from_numpy(labels).to(self.device)[real][..., None] == self.categories.squeeze()
        loss = functional.binary_cross_entropy_with_logits(logits, truth.float())
        return loss.item(), logits.argmax(dim=-1).to(torch.uint8).cpu().numpy()
