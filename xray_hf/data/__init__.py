"""From a folder of X-rays to splits and pixels."""
