"""From a network and splits to trained weights."""
