"""The contestants of worker.py that predict in int8, quantised after training on the very photos that they predict."""


def openvino_prediction(inputs, threads):
    """NNCF's quantisation for the CPU; what it leaves in floats is computed in bf16."""
    import nncf
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    model = core.read_model(inputs.folder / "predict.onnx")
    model.reshape(inputs.photos.shape)
    photos = nncf.Dataset([inputs.photos])
    quantized = nncf.quantize(model, photos, target_device=nncf.TargetDevice.CPU, subset_size=1)
    compiled = core.compile_model(quantized, "CPU", settings)
    return lambda: {"maps": compiled(inputs.photos)[0]}


def torch_prediction(recipe, photos):
    """Quantisation of the exported graph (pt2e, torchao) for Inductor's x86 backend, compiled with constants folded."""
    import torch
    from torch import nn
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer

    class LabelMaps(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = recipe.network

        def forward(self, photos):
            return recipe.network.enlarge(self.network(photos).argmax(dim=1).to(torch.uint8))

    torch._inductor.config.freezing = True
    quantizer = x86_inductor_quantizer.X86InductorQuantizer()
    quantizer.set_global(x86_inductor_quantizer.get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        exported = torch.export.export(LabelMaps().eval(), (photos,)).module()
        prepared = prepare_pt2e(exported, quantizer)
        prepared(photos)
        predict = torch.compile(convert_pt2e(prepared))

    def maps():
        with torch.no_grad():
            return {"maps": predict(photos).numpy()}

    return maps
