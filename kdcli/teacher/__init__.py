"""The teacher: fine-tuning, its logits, and the join of the two tables."""
