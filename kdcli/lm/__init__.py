"""Language models, for generator plugins too: fine-tuning, and sampling in a batch that stays full."""
