"""The GGUF companion: the published weights as files that llama.cpp and Ollama read, and what each of them keeps."""
