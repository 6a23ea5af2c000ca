"""Spiking backbones: name -> class."""

BACKBONES = {
    "cnn": "sadp_bench.backbones.plain:CNN",
    "mlp": "sadp_bench.backbones.mlp:MLP",
    "recurrent": "sadp_bench.backbones.recurrent:Recurrent",
    "vgg11": "sadp_bench.backbones.plain:VGG11",
    "vgg16": "sadp_bench.backbones.plain:VGG16",
    "vggsnn": "sadp_bench.backbones.plain:VGGSNN",
    "resnet18": "sadp_bench.backbones.resnet:ResNet18",
    "resnet18-sltt": "sadp_bench.backbones.resnet:SLTTResNet18",
    "sew-resnet18": "sadp_bench.backbones.resnet:SEWResNet18",
    "sew-7b": "sadp_bench.backbones.sew_7b:SEW7B",
    "ms-resnet18": "sadp_bench.backbones.resnet:MSResNet18",
    "resnet19": "sadp_bench.backbones.resnet:ResNet19",
    "spikformer": "sadp_bench.backbones.spikingjelly_models:Spikformer",
    "sdt": "sadp_bench.backbones.spikingjelly_models:SDT",
    "qkformer": "sadp_bench.backbones.spikingjelly_models:QKFormer",
    "spikingjelly": "sadp_bench.backbones.spikingjelly_models:SpikingJellyModel",
}
