"""Full-size models: their specification as a file, the model built from it, and the file it is kept in."""
