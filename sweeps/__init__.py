"""Recipes, search spaces, studies, workers and the results store. Nothing heavy is imported here."""
