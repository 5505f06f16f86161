"""Runs in the emulated machine: answers of one TFLite file, and marks around inferences that the plugin counts between.

    inside.py FILE IMAGES.npy ANSWERS.npy RUNS

Marks come in pairs: RUNS of them around nothing, then RUNS around an inference of the first image.
"""

import os
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

file, images, answers, runs = sys.argv[1], np.load(sys.argv[2]), sys.argv[3], int(sys.argv[4])
interpreter = Interpreter(file, num_threads=1)
interpreter.allocate_tensors()
taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]


said = []
for image in images:
    interpreter.set_tensor(taken, image[None])
    interpreter.invoke()
    said.append(interpreter.get_tensor(given))
np.save(answers, np.concatenate(said))
interpreter.set_tensor(taken, images[:1])
for call in (lambda: None, interpreter.invoke):
    call()  # what is done once is done
    for _ in range(runs):
        os.getppid()
        call()
        os.getppid()
