"""The student: vocabulary, losses, training, evaluation, prediction."""
