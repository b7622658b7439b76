"""What each part of a published architecture is worth: leave one out, add one in."""
