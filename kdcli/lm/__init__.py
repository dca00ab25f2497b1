"""What a generator plugin builds on: fine-tuning of language models, and a sampler whose batch stays full."""
