"""``lab export``: a trained model as a file to give away: whole, in few bits, or for transformers."""
