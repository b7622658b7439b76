"""What a trained model can do: bits per byte of a text, recall in context, and the tasks of lm-eval-harness."""
