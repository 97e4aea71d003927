"""What the recipes have in common in PyTorch, on the CPU or on CUDA: its forms, a step, a prediction."""

import math

import torch

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


class Recipe:
    """How a network learns. A recipe names its `NETWORK`, whose state dict is a `weights.safetensors`, and defines
    `optimizer()` and `loss_of(logits, labels)`.
    """

    def __init__(self, device="cpu", form="eager", precision="fp32", weights=None):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
        self.device, self.bf16, self.steps = torch.device(device), precision == "bf16", 0
        self.network = self.NETWORK()
        if weights is not None:
            self.network.load_state_dict(weights)
        self.network.to(self.device, memory_format=torch.channels_last)
        self.adam = self.optimizer()
        compiled = torch.compile if form == "compile" else lambda function: function
        self.loss, self.label_maps = compiled(self._loss), compiled(self._label_maps)

    def _logits(self, photos):
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.network(photos)

    def _loss(self, photos, labels):
        return self.loss_of(self._logits(photos).float(), labels)

    def _label_maps(self, photos):
        return self.network.enlarge(self._logits(photos).argmax(dim=1).to(torch.uint8))

    def step(self, photos, labels):
        """One step on u8 tensors of the device; the loss before it, a scalar of the device."""
        self.steps += 1
        # PyTorch adds epsilon after the bias correction, Keras before it.
        for group in self.adam.param_groups:
            group["eps"] = EPSILON / math.sqrt(1 - BETA_2**self.steps)
        loss = self.loss(photos, labels)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.inference_mode()
    def predict(self, photos):
        """Category of each pixel, u8 [batch, rows, columns]."""
        return self.label_maps(photos)
