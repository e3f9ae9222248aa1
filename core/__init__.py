"""What runs a recipe: kinds, recipes, plans, stages, reports."""
