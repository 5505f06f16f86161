"""Runs in onnx2tf's own environment: FILE.onnx OUTPUT_FOLDER CALIBRATION.npy, float32 [N, S, S, 3] of 0..1."""

import sys

import onnx2tf

onnx2tf.convert(
    input_onnx_file_path=sys.argv[1],
    output_folder_path=sys.argv[2],
    output_integer_quantized_tflite=True,
    quant_type="per-channel",
    custom_input_op_name_np_data_path=[["image", sys.argv[3], [[[[0.5, 0.5, 0.5]]]], [[[[0.5, 0.5, 0.5]]]]]],
    non_verbose=True,
)
