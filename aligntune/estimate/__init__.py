"""What training needs, by arithmetic: memory and work, before a model is loaded. No torch."""
