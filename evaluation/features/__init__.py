"""What pictures are measured by: features of Inception, EfficientNet-Lite0 and CLIP, sums of features and their files.

Distances between features belong in `evaluation.metrics`, lists of pictures and resuming in `evaluation.images`.
"""
