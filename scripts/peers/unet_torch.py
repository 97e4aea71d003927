"""The network and the recipe `seed` in PyTorch.

Modules are named and laid out as lookbook's weights are, so a `weights.safetensors` is a state dict.
"""

import torch
from recipe_torch import BETA_1, BETA_2, Recipe
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
        self.register_buffer("categories", torch.arange(CATEGORY_COUNT, dtype=torch.uint8)[:, None, None], False)
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

    @staticmethod
    def enlarge(label_maps):
        return label_maps


class Seed(Recipe):
    """The recipe `seed`: mean binary cross-entropy over all maps, Adam as Keras applies it."""

    NETWORK, LEARNING_RATE = UNet, 1e-3

    def optimizer(self):
        return torch.optim.Adam(self.network.parameters(), lr=self.LEARNING_RATE, betas=(BETA_1, BETA_2), fused=True)

    def loss_of(self, logits, labels):
        truth = (labels[:, None] == self.network.categories).float()
        return functional.binary_cross_entropy_with_logits(logits, truth)

    @torch.inference_mode()
    def evaluate(self, photos, labels, real):
        """Mean loss and label maps, u8, over the pixels `real` of numpy arrays."""
        logits = self._logits(torch.from_numpy(photos).to(self.device)).float().permute(0, 2, 3, 1)[real]
        truth = torch.from_numpy(labels).to(self.device)[real][..., None] == self.network.categories.squeeze()
        loss = functional.binary_cross_entropy_with_logits(logits, truth.float())
        return loss.item(), logits.argmax(dim=-1).to(torch.uint8).cpu().numpy()
