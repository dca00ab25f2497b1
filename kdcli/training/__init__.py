"""Fine-tuning: Hugging Face Trainer, the best dev checkpoint kept, resumable; for teachers and generators alike."""
