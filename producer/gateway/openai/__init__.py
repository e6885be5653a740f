"""OpenAI's API, translated to the same jobs, keys, limits and errors."""
