"""A network as it is used: grey pixels in; logits, class activation maps and embedding out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xray_hf.models.create import Network
from xray_hf.models.lungs import crop, standardise, uncrop

OUTPUTS = ("logits", "heatmaps", "embedding", "lungs")


class OnePass(nn.Module):
    """Wraps a network, normalisation included.

    (B, 1, side, side) uint8 -> logits (B, C), heatmaps (B, C, h, w), embedding (B, D), all float32; for a
    network that sees only the lungs also lungs (B, GRID, GRID), as models/lungs.py finds them.

    heatmaps: the exact class activation map (Zhou et al. 2016): the classifier applied at every position of
    the last feature map, so that its mean is the logit. They exist only if the head is average pooling and
    one linear layer, `is_linear`; for other heads there is `grad_cam`. If the network sees only the lungs,
    they are moved to the lungs' place and are 0 around it, so their mean is no longer the logit.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.lungs = network.lungs
        self.side = network.preprocessing.side
        inside = _Inside(network)
        self.is_linear = inside.is_linear
        self.inside: Any = inside  # export puts a folded copy in its place

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the tensors that a call returns, in order."""
        missing = {"heatmaps": not self.is_linear, "lungs": self.lungs is None}
        return tuple(name for name in OUTPUTS if not missing.get(name))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors that `outputs` names."""
        images = pixels.to(torch.float32)
        if self.lungs is None:
            return tuple(self.inside(images))
        box, lungs = self.lungs(images)
        logits, *maps, embedding = self.inside(standardise(crop(images, box, self.side)))
        return (logits, *(uncrop(each, box) for each in maps), embedding, lungs)

    def grad_cam(self, pixels: torch.Tensor) -> torch.Tensor:
        """Grad-CAM (Selvaraju et al. 2017) of every class on the last feature map, before the ReLU.

        (B, 1, side, side) uint8 -> (B, C, h, w) float32. Networks of tokens give the map of their grid.
        """
        images = pixels.to(torch.float32)
        if self.lungs is None:
            maps: torch.Tensor = self.inside.grad_cam(images)
            return maps
        with torch.no_grad():
            box, _ = self.lungs(images)
        return uncrop(self.inside.grad_cam(standardise(crop(images, box, self.side))), box)


class _Inside(nn.Module):
    """The part after the crop: (B, 1, side, side) float32, 0 to 255 -> logits, heatmaps, embedding."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        # Any: the parts below are methods that timm's models have and nn.Module's type does not know.
        self.network: Any = network.module.eval()
        mean, std = torch.tensor(network.preprocessing.mean), torch.tensor(network.preprocessing.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1))
        self.is_linear = self._has_linear_head(network.preprocessing.side)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.network.forward_features(images * self.scale + self.shift)
        embedding = self.network.forward_head(features, pre_logits=True)
        logits = self.network.forward_head(features)
        if not self.is_linear:
            return logits, embedding
        classifier = self.network.get_classifier()
        heatmaps = nn.functional.conv2d(features, classifier.weight[:, :, None, None], classifier.bias)
        return logits, heatmaps, embedding

    def grad_cam(self, images: torch.Tensor) -> torch.Tensor:
        """As OnePass.grad_cam, for the inside of the crop."""
        with torch.no_grad():
            features = self.network.forward_features(images * self.scale + self.shift)
        with torch.enable_grad():
            features.requires_grad_()
            logits = self.network.forward_head(features)
            gradients = [
                torch.autograd.grad(column.sum(), features, retain_graph=True)[0]
                for column in logits.unbind(1)
            ]
        return torch.stack([self._weighted_sum(features, each) for each in gradients], dim=1)

    def _weighted_sum(self, features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        features, gradients = self._as_maps(features.detach()), self._as_maps(gradients)
        return (gradients.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1)

    def _as_maps(self, features: torch.Tensor) -> torch.Tensor:
        """timm's features, (B, D, h, w), (B, h, w, D) or tokens (B, N, D) -> (B, D, h, w)."""
        if features.ndim == 3:
            tokens = features[:, getattr(self.network, "num_prefix_tokens", 0) :]
            side = int(tokens.shape[1] ** 0.5)
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
        return features.permute(0, 3, 1, 2) if self._is_channels_last else features

    @property
    def _is_channels_last(self) -> bool:
        return str(getattr(self.network, "output_fmt", "NCHW")) == "NHWC"

    @torch.no_grad()
    def _has_linear_head(self, side: int) -> bool:
        """Whether the logits are one linear layer on the mean of the feature map; tried, not guessed."""
        classifier = self.network.get_classifier()
        features = self.network.forward_features(torch.randn(2, 3, side, side, device=self.scale.device))
        if not isinstance(classifier, nn.Linear) or features.ndim != 4 or self._is_channels_last:
            return False
        if features.shape[1] != classifier.in_features:
            return False
        logits = self.network.forward_head(features)
        return torch.allclose(classifier(features.mean(dim=(2, 3))), logits, rtol=1e-4, atol=1e-5)
