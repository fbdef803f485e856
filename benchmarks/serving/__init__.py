"""Our service beside other servers of the same ONNX file, and beside what the machine can do without any."""
