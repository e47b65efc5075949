"""xray-cnn: the custom CNN of İbişoğlu and Akçay 2021 (section II.A.3), as a transformers model.

Given by the paper: five convolution layers, each with batch normalisation, ReLU and max pooling, Xavier
initialisation, dropout of 0.25. Not given, and chosen here: 3×3 kernels, channels doubling from 16 to 256,
and a head of global average pooling and one linear layer, which makes the class activation map exact.
"""

from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from .configuration_xray_cnn import XrayCnnConfig


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """(B, in, H, W) -> (B, out, H/2, W/2)."""
    return nn.Sequential(
        # No bias: the batch normalisation behind it has one.
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


class XrayCnnForImageClassification(PreTrainedModel):
    """(B, 3, 224, 224) float32, normalised -> logits (B, num_labels)."""

    config_class = XrayCnnConfig
    base_model_prefix = "features"
    main_input_name = "pixel_values"

    def __init__(self, config: XrayCnnConfig):
        super().__init__(config)
        sizes = [config.num_channels, *config.hidden_sizes]
        self.features = nn.Sequential(*(conv_block(*pair) for pair in pairwise(sizes)))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(sizes[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: object
    ) -> ImageClassifierOutputWithNoAttention:
        """labels: (B,) int64; with them the output holds the mean cross entropy as `loss`."""
        logits = self.forward_head(self.forward_features(pixel_values))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)

    # The parts by timm's names, so that heatmaps and embeddings are made the same way for every network.

    def forward_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, 224, 224) float32, normalised -> the last feature map (B, 256, 7, 7)."""
        return self.features(pixel_values)

    def forward_head(self, maps: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(B, 256, 7, 7) -> logits (B, num_labels); with `pre_logits` what the classifier sees, (B, 256)."""
        embedding = maps.mean(dim=(2, 3))
        return embedding if pre_logits else self.classifier(self.dropout(embedding))

    def get_classifier(self) -> nn.Linear:
        """The last layer."""
        return self.classifier
