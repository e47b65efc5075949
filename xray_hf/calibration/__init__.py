"""How to read a network's answers: temperature, abstention, operating points, OOD detection.

OOD (out of distribution) is what is no frontal chest X-ray. All of it is fitted on a bundle's training and
validation rows and lies in its calibration.json.
"""
