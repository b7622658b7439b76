"""What a trained model can do: bits per byte of a text, recall in context, tasks of lm-eval-harness."""
