"""New plugins: templates that are working packages named ``kd_example``, and what writes them under another name."""
