"""Pictures as a producer handles them: without an image library unless one is installed."""
