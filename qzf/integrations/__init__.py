"""Programs that know only GGUF or safetensors: a container's members as the files they were."""
