"""A student for other programs: as ONNX, and as a folder for the Hugging Face Hub."""
