"""What clients of OpenAI's API speak, translated to the same jobs, keys, limits and errors."""
