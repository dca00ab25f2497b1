"""Models, for plugins too: Hugging Face files, word embeddings, inference without torch, devices and memory."""
