"""The child process that asks MediaPipe: `python -m tests.export.mediapipe_answers FILE TASK IMAGES ANSWERS`.

Native code may abort, and MediaPipe brings a second copy of TFLite. It takes the file alone: no labels, no numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def classify(options: BaseOptions, images: np.ndarray) -> dict[str, np.ndarray]:
    """Names and probabilities of the best class of each image."""
    with vision.ImageClassifier.create_from_options(vision.ImageClassifierOptions(base_options=options)) as task:
        said = [task.classify(shown(image)).classifications[0].categories[0] for image in images]
    return {"names": np.array([each.category_name for each in said]), "scores": np.array([each.score for each in said])}


def segment(options: BaseOptions, images: np.ndarray) -> dict[str, np.ndarray]:
    """Names of the classes, and of each image its mask and the confidences, both of the image's size."""
    masks, confidences = [], []
    both = vision.ImageSegmenterOptions(base_options=options, output_category_mask=True, output_confidence_masks=True)
    with vision.ImageSegmenter.create_from_options(both) as task:
        names = task.labels
        for image in images:
            said = task.segment(shown(image))
            size = image.shape[:2]
            masks.append(said.category_mask.numpy_view().reshape(size).copy())
            confidences.append(np.stack([mask.numpy_view().reshape(size) for mask in said.confidence_masks], axis=-1))
    return {"names": np.array(names), "masks": np.stack(masks), "confidences": np.stack(confidences)}


def shown(image: np.ndarray) -> mediapipe.Image:
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))


if __name__ == "__main__":
    file, task, images, answers = sys.argv[1:]
    options = BaseOptions(model_asset_buffer=Path(file).read_bytes())
    np.savez(answers, **{"classify": classify, "segment": segment}[task](options, np.load(images)))
