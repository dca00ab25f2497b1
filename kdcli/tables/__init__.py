"""Reading and writing: tables, resumable parts, word vectors."""
