"""Class names of public segmentation sets, for weights that do not carry their own."""

from __future__ import annotations

__all__ = ["KNOWN_CLASSES"]

# fmt: off
KNOWN_CLASSES = {
    # PASCAL VOC 2012
    "voc": [
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ],
    # Cityscapes: the 19 classes that are scored, in the order of their train ids
    "cityscapes": [
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ],
}
# fmt: on
"""Names in the order of the outputs, by the name of the set."""
