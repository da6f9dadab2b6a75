// Starts and never answers.
