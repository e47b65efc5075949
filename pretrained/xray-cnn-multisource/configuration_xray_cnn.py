"""Configuration of xray-cnn; this file and its neighbour travel with the weights."""

from transformers import PreTrainedConfig


class XrayCnnConfig(PreTrainedConfig):
    """Five convolution blocks and a linear head.

    num_channels: channels of the input. hidden_sizes: channels after each of the five blocks.
    hidden_dropout_prob: dropout in front of the head, in 0..1. image_size: side of the input in pixels.
    """

    model_type = "xray-cnn"

    num_channels: int = 3
    hidden_sizes: tuple[int, ...] | list[int] = (16, 32, 64, 128, 256)
    hidden_dropout_prob: float = 0.25
    image_size: int = 224
