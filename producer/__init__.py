"""Submit text-to-image and image-to-text jobs, and find what became of them."""
