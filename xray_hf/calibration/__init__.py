"""Temperature scaling, abstention, operating points, OOD detection.

Out of distribution (OOD) means anything but a frontal chest X-ray. Everything is fitted on a bundle's
training and validation rows and saved in its calibration.json.
"""
