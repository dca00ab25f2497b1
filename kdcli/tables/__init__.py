"""Tables: read, write, hash. The only place that knows file formats."""
